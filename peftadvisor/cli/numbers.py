"""Numbers as users write them on the command line: what options of counts and shares accept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import click

# Beyond any real run, and small enough for products of a few of them to stay exact in 64 bits.
_LARGEST = 1_000_000
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def _tokens(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)([kmbt]?)", text.lower())
    count = float(match[1]) * _SUFFIXES[match[2]] if match else 0.0
    if not 1 <= count <= 1e18:
        raise ValueError(f"'{text}' is no number of tokens; write it like 1000000 or 10M")
    return int(count)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= _LARGEST):
        raise ValueError(f"'{text}' is no whole number from 1 to {_LARGEST}")
    return int(text)


def _amount(text: str) -> float:
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"'{text}' is no number above 0")
    return number


def _share(text: str) -> float:
    number = _number(text)
    if not 0 <= number <= 1:
        raise ValueError(f"'{text}' is no number from 0 to 1")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_by(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """An option's callback out of a function that raises ValueError on bad text."""

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        try:
            return read(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param=param) from None

    return callback


COUNT: dict[str, Any] = {"metavar": "N", "callback": _read_by(_count)}
TOKENS: dict[str, Any] = {"metavar": "COUNT", "callback": _read_by(_tokens)}
AMOUNT: dict[str, Any] = {"metavar": "NUMBER", "callback": _read_by(_amount)}
SHARE: dict[str, Any] = {"metavar": "SHARE", "callback": _read_by(_share)}
