"""Figures of reports as shapes and texts in a rectangle; one template draws them all as SVG.

Units are those of the ``viewBox``; y grows downwards. Every figure has a sentence for those who do
not see it, and every shape that stands for a value a text that says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

WIDTH = 440.0
"""Of every figure: text of a size that can be read where the page is narrow."""
LINE = 18.0

Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A path with its class; ``text`` says what it stands for, ``href`` where it leads."""

    path: str
    style: str
    text: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A text in the drawing; ``turned`` ones read upwards."""

    x: float
    y: float
    text: str
    anchor: Anchor = "middle"
    style: str = ""
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend: the class that shapes of a kind have, what they are, a small one."""

    style: str
    name: str
    path: str = "M0 0H10V10H0z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure; ``key`` is its place in the page. ``wide`` ones have a row for themselves."""

    kind: ClassVar[str] = "drawing"
    key: str
    title: str
    description: tuple[str, ...]
    height: float
    shapes: tuple[Shape, ...]
    labels: tuple[Label, ...]
    legend: tuple[Key, ...] = ()
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Box:
    """The rectangle that values are drawn in."""

    left: float
    top: float
    right: float
    bottom: float

    def outline(self) -> Shape:
        """Its frame."""
        return Shape(bar(self.left, self.top, self.right, self.bottom), "frame")


Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """From values between ``low`` and ``high`` to places between ``start`` and ``end``."""
    factor = (end - start) / ((high - low) or 1.0)
    return lambda value: start + factor * (value - low)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """The same for values above 0, equal ratios being equally long."""
    factor = (end - start) / (math.log(high / low) or 1.0)
    return lambda value: start + factor * math.log(value / low)


def round_steps(high: float, most: int = 5) -> list[float]:
    """Round values from 0 up to ``high``: at most ``most`` steps of 1, 2 or 5 times a power."""
    if high <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(high / most))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= high / most)
    return [number * step for number in range(math.floor(high / step * (1 + 1e-9)) + 1)]


def round_between(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between two others."""
    steps = round_steps(high - low, most)
    step = steps[1] if len(steps) > 1 else high - low
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step) + 1)]


def powers(low: float, high: float, base: float = 10.0, most: int = 6) -> list[float]:
    """Powers of ``base`` from ``low`` to ``high``, not too many of them."""
    first = math.ceil(math.log(low, base) - 1e-9)
    last = math.floor(math.log(high, base) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    return [base**power for power in range(first, last + 1, every)]


def bar(left: float, top: float, right: float, bottom: float) -> str:
    """A rectangle."""
    return f"M{at(left)} {at(top)}H{at(right)}V{at(bottom)}H{at(left)}z"


def dot(x: float, y: float, radius: float = 5.0) -> str:
    """A disc."""
    half = f"a{at(radius)} {at(radius)} 0 1 0"
    return f"M{at(x - radius)} {at(y)}{half} {at(2 * radius)} 0{half} {at(-2 * radius)} 0z"


def diamond(x: float, y: float, radius: float = 6.0) -> str:
    """A square on its corner."""
    r = at(radius)
    return f"M{at(x)} {at(y - radius)}l{r} {r}l-{r} {r}l-{r} -{r}z"


def triangle(x: float, y: float, radius: float = 5.0) -> str:
    """A triangle on its side."""
    foot = y + 0.8 * radius
    return f"{line((x, y - radius), (x + radius, foot), (x - radius, foot))}z"


def line(*points: tuple[float, float]) -> str:
    """From point to point."""
    return "M" + "L".join(f"{at(x)} {at(y)}" for x, y in points)


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]]) -> str:
    """What lies between two lines."""
    return f"{line(*upper, *reversed(lower))}z"


def at(place: float) -> str:
    """A place in a drawing, to a tenth."""
    text = f"{place:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def across(box: Box, places: Sequence[tuple[float, str]]) -> tuple[list[Shape], list[Label]]:
    """Vertical lines with their texts below."""
    lines = [Shape(line((x, box.top), (x, box.bottom)), "tick") for x, _ in places]
    return lines, [Label(x, box.bottom + LINE, text) for x, text in places]


def upwards(box: Box, places: Sequence[tuple[float, str]]) -> tuple[list[Shape], list[Label]]:
    """Horizontal lines with their texts to the left."""
    lines = [Shape(line((box.left, y), (box.right, y)), "tick") for y, _ in places]
    return lines, [Label(box.left - 7, y + 4.5, text, "end") for y, text in places]


def below(box: Box, text: str) -> Label:
    """What is told along the bottom."""
    return Label((box.left + box.right) / 2, box.bottom + 2 * LINE + 4, text)


def beside(box: Box, text: str) -> Label:
    """What is told along the left side."""
    return Label(15, (box.top + box.bottom) / 2, text, turned=True)
