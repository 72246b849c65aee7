"""Python source out of values: literals that nothing can break out of, calls over lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 96


@dataclass(frozen=True, slots=True)
class Code:
    """An expression that stands in the source as it is: a name, a call."""

    text: str


def literal(value: Any) -> str:
    """The source of a plain value, an expression (``Code``), or a list or dict of them."""
    if isinstance(value, Code):
        return value.text
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def _string(text: str) -> str:
    """Double quotes, and raw where backslashes are meant as they are."""
    raw = "\\" in text and text.isascii() and text.isprintable() and not text.endswith("\\")
    if raw and '"' not in text:
        return f'r"{text}"'
    source = repr(text)
    return f'"{source[1:-1]}"' if source[0] == "'" and '"' not in source else source


def call(name: str, arguments: Mapping[str, Any], given: Sequence[Any] = ()) -> list[str]:
    """The lines of a call: one line if it is short, else one for each argument."""
    parts = [*map(literal, given), *(f"{key}={literal(value)}" for key, value in arguments.items())]
    line = f"{name}({', '.join(parts)})"
    if len(line) <= WIDTH - 16 and len(parts) < 4:
        return [line]
    return [f"{name}(", *(f"    {part}," for part in parts), ")"]


def assigned(target: str, lines: Sequence[str]) -> list[str]:
    """``target = ...`` over the lines of an expression."""
    return [f"{target} = {lines[0]}", *lines[1:]]


def indented(lines: Sequence[str], by: int = 1) -> list[str]:
    """The lines, further in."""
    return [("    " * by + line).rstrip() for line in lines]
