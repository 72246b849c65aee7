"""Plain data from strangers as our frozen dataclasses: every key and type is checked by its field.

Keys that a class does not have are passed over, so that files of later versions can be read.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError

T = TypeVar("T")

_LARGEST = 10**24
"""Beyond any count of FLOPs; larger numbers are no quantities."""


def shaped(kind: type[T], data: Any, where: str) -> T:
    """The data as that dataclass; ``where`` names the place in errors: file and keys.

    Raises:
        UsageError: a key is missing, or a value is of another type or refused by the class.
    """
    made: T = _read(kind, data, where)
    return made


def _read(kind: Any, data: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _object(kind, data, where)
    origin = get_origin(kind)
    if origin is not None:
        return _COMPOSED[origin](kind, data, where)
    return _PLAIN[kind](data, where)


def _object(kind: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(data, where, "an object")
    hints, values = _hints(kind), {}
    for part in fields(kind):
        if part.name in data:
            values[part.name] = _read(hints[part.name], data[part.name], f"{where}.{part.name}")
        elif part.default is MISSING and part.default_factory is MISSING:
            raise UsageError(f"{where} has no key '{part.name}'; pass what peftadvisor wrote")
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _union(kind: Any, data: Any, where: str) -> Any:
    """The first of the kinds that the data is."""
    kinds = get_args(kind)
    if data is None and type(None) in kinds:
        return None
    others = [one for one in kinds if one is not type(None)]
    for one in others[:-1]:
        try:
            return _read(one, data, where)
        except UsageError:
            continue
    return _read(others[-1], data, where)


def _tuple(kind: Any, data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _wrong(data, where, "a list")
    inner = get_args(kind)
    if inner[-1:] == (Ellipsis,):
        return tuple(_read(inner[0], one, f"{where}[{n}]") for n, one in enumerate(data))
    if len(inner) != len(data):
        raise _wrong(data, where, f"a list of {len(inner)}")
    pairs = zip(inner, data, strict=True)
    return tuple(_read(one, value, f"{where}[{n}]") for n, (one, value) in enumerate(pairs))


def _mapping(kind: Any, data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _wrong(data, where, "an object")
    inner = get_args(kind)[1]
    return {key: _read(inner, value, f"{where}.{one_line(key)}") for key, value in data.items()}


def _literal(kind: Any, data: Any, where: str) -> Any:
    if data not in get_args(kind):
        raise _wrong(data, where, f"one of {', '.join(map(str, get_args(kind)))}")
    return data


def _text(data: Any, where: str) -> str:
    if not isinstance(data, str):
        raise _wrong(data, where, "a text")
    return data


def _truth(data: Any, where: str) -> bool:
    if not isinstance(data, bool):
        raise _wrong(data, where, "true or false")
    return data


def _whole(data: Any, where: str) -> int:
    if isinstance(data, bool) or not isinstance(data, int) or abs(data) > _LARGEST:
        raise _wrong(data, where, "a whole number")
    return data


def _number(data: Any, where: str) -> float:
    if isinstance(data, bool) or not isinstance(data, int | float) or not _finite(data):
        raise _wrong(data, where, "a number")
    return float(data)


def _finite(data: float) -> bool:
    return math.isfinite(data) and abs(data) <= _LARGEST


def _anything(data: Any, where: str) -> Any:
    return data


def _wrong(data: Any, where: str, wanted: str) -> UsageError:
    shown = one_line(repr(data))
    shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
    return UsageError(f"{where} is {shown}; it must be {wanted}")


_COMPOSED: Mapping[Any, Callable[[Any, Any, str], Any]] = {
    Union: _union,
    types.UnionType: _union,
    tuple: _tuple,
    dict: _mapping,
    Mapping: _mapping,
    Literal: _literal,
}
_PLAIN: Mapping[Any, Callable[[Any, str], Any]] = {
    str: _text,
    bool: _truth,
    int: _whole,
    float: _number,
    Any: _anything,
}
