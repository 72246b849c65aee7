"""Figures as geometry: where marks, bars, lines and ticks lie; templates draw them as SVG.

Units of a drawing are those of its ``viewBox``; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

SIDE = 440.0
"""Width of every drawing, and height of a square one."""
_LEFT, _TOP, _RIGHT, _BOTTOM = 58.0, 14.0, 14.0, 50.0
_LOW = 190.0
"""Height of a drawing of bars."""
_NARROW, _WIDE = 5, 200
"""Ratios of an axis' ends below and above which it has other ticks."""
_PADDING = 1.15
"""Factor by which a logarithmic axis reaches beyond its values."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A value in the drawing; ``text`` says what it is."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Marks of one kind."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """The rectangle inside the axes, in a drawing so wide and high."""

    left: float
    top: float
    right: float
    bottom: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """Points in a square with the line on which both values are the same.

    ``description`` is its text alternative, in sentences; ``band`` is how far from that line, up
    or to the right, values lie that are 10 % off.
    """

    key: str
    title: str
    description: tuple[str, ...]
    unit: str
    frame: Frame
    band: float
    ticks: tuple[Tick, ...]
    series: tuple[Series, ...]

    def across(self, at: float) -> float:
        """Where a tick of the vertical axis lies; both axes have the same."""
        return self.frame.bottom - (at - self.frame.left)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from the bottom of the frame up to ``y``."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts per interval; ``zero`` is where nothing is on the horizontal axis."""

    key: str
    title: str
    description: tuple[str, ...]
    frame: Frame
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]
    zero: float
    most: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What was measured and what was predicted, both above 0, and what of."""

    measured: float
    predicted: float
    text: str


def scatter(
    key: str,
    title: str,
    description: tuple[str, ...],
    unit: str,
    series: Sequence[tuple[str, Sequence[Pair]]],
) -> Scatter:
    """Logarithmic axes, the same in both directions."""
    values = [value for _, pairs in series for p in pairs for value in (p.measured, p.predicted)]
    low, high = min(values) / _PADDING, max(values) * _PADDING
    side = SIDE - _LEFT - _RIGHT
    frame = Frame(_LEFT, _TOP, _LEFT + side, _TOP + side, SIDE, _TOP + side + _BOTTOM)
    place = _logarithmic(low, high, frame.left, frame.right)
    rise = _logarithmic(low, high, frame.bottom, frame.top)
    return Scatter(
        key=key,
        title=title,
        description=description,
        unit=unit,
        frame=frame,
        band=place(1.1 * low) - frame.left,
        ticks=tuple(Tick(place(value), f"{value:g}") for value in _round_values(low, high)),
        series=tuple(
            Series(
                name=name,
                marks=tuple(Mark(place(p.measured), rise(p.predicted), p.text) for p in pairs),
            )
            for name, pairs in series
        ),
    )


def histogram(
    key: str,
    title: str,
    description: tuple[str, ...],
    edges: Sequence[float],
    counts: Sequence[int],
) -> Histogram:
    """Counts below the first edge, between two edges, and from the last edge on, of shares."""
    frame = Frame(_LEFT, _TOP, SIDE - _RIGHT, _LOW - _BOTTOM, SIDE, _LOW)
    step = (frame.right - frame.left) / len(counts)
    most = max(*counts, 1)
    bars = []
    for number, count in enumerate(counts):
        height = (frame.bottom - frame.top) * count / most
        x, y = frame.left + number * step, frame.bottom - height
        if count:
            bars.append(Bar(x, y, step, height, f"{_interval(edges, number)}: {count}"))

    def place(edge: float) -> float:
        share = (edge - edges[0]) / (edges[-1] - edges[0])
        return frame.left + step + share * (len(counts) - 2) * step

    middle = (edges[0] + edges[-1]) / 2
    shown = (edges[0], (edges[0] + middle) / 2, middle, (middle + edges[-1]) / 2, edges[-1])
    return Histogram(
        key=key,
        title=title,
        description=description,
        frame=frame,
        ticks=tuple(Tick(place(edge), _percent(edge)) for edge in shown),
        bars=tuple(bars),
        zero=place(0.0),
        most=most,
    )


def _interval(edges: Sequence[float], number: int) -> str:
    if number == 0:
        return f"below {_percent(edges[0])}"
    if number == len(edges):
        return f"{_percent(edges[-1])} and above"
    return f"{_percent(edges[number - 1])} to {_percent(edges[number])}"


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−") if round(100 * share) else "0 %"


def _logarithmic(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From values between ``low`` and ``high`` to places between ``start`` and ``end``."""
    factor = (end - start) / math.log(high / low)
    return lambda value: start + factor * math.log(value / low)


def _round_values(low: float, high: float) -> Iterable[float]:
    """1, 2 and 5 times powers of ten, powers alone where there are many; multiples within few."""
    if high / low < _NARROW:
        power = 10.0 ** math.floor(math.log10((high - low) / 3))
        step = max(s * power for s in (1, 2, 5) if s * power <= (high - low) / 3)
        return (n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1))
    steps = (1, 2, 5) if high / low < _WIDE else (1,)
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    values = (step * 10.0**power for power in range(first, last + 1) for step in steps)
    return (value for value in values if low <= value <= high)
