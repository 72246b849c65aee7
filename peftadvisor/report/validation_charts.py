"""Predictions against measurements as figures: pairs beside a diagonal, errors by interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from peftadvisor.report.charts import Frame, framed
from peftadvisor.report.drawing import (
    WIDTH,
    Box,
    Drawing,
    Key,
    Shape,
    across,
    area,
    bar,
    below,
    beside,
    diamond,
    dot,
    line,
    linear,
    logarithmic,
    powers,
    round_between,
    triangle,
    upwards,
)

_NARROW, _WIDE = 5, 200
"""Ratios of an axis' ends below and above which it has other ticks."""
_PADDING = 1.15
"""Factor by which a logarithmic axis reaches beyond its values."""
_MARKS = (dot, diamond, triangle)
_RADIUS = 5.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What was measured and what was predicted, both above 0, and what of."""

    measured: float
    predicted: float
    text: str


def scatter(frame: Frame, series: Sequence[tuple[str, Sequence[Pair]]]) -> Drawing:
    """A square whose logarithmic axes are the same; at most three series, each with its mark."""
    values = [value for _, pairs in series for p in pairs for value in (p.measured, p.predicted)]
    low, high = min(values) / _PADDING, max(values) * _PADDING
    box = Box(64, 14, WIDTH - 14, WIDTH - 64)
    place = logarithmic(low, high, box.left, box.right)
    rise = logarithmic(low, high, box.bottom, box.top)
    ticks = _round_values(low, high)
    columns, labels = across(box, [(place(value), f"{value:g}") for value in ticks])
    rows, more = upwards(box, [(rise(value), f"{value:g}") for value in ticks])
    diagonal = line((box.left, box.bottom), (box.right, box.top))
    band = _band(box, place(1.1 * low) - box.left)
    shapes = [Shape(band, "band"), *columns, *rows, Shape(diagonal, "same"), box.outline()]
    legend = []
    for number, (name, pairs) in enumerate(series):
        mark, style = _MARKS[number], f"series s{number} mark"
        legend.append(Key(style, name, mark(5, 5, _RADIUS)))
        for pair in pairs:
            path = mark(place(pair.measured), rise(pair.predicted), _RADIUS)
            shapes.append(Shape(path, style, pair.text))
    if len(series) > 1:
        frame = replace(frame, legend=tuple(legend))
    ends = below(box, f"measured, {frame.unit}"), beside(box, f"predicted, {frame.unit}")
    return framed(frame, box, shapes, [*labels, *more, *ends])


def _band(box: Box, off: float) -> str:
    """What lies at most so far above or right of the diagonal, or below or left of it."""
    upper = [(box.left, box.bottom - off), (box.right - off, box.top), (box.right, box.top)]
    lower = [(box.left, box.bottom), (box.left + off, box.bottom), (box.right, box.top + off)]
    return area(upper, lower)


def _round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, powers alone where there are many; multiples within few."""
    if high / low < _NARROW:
        return round_between(low, high)
    steps = (1, 2, 5) if high / low < _WIDE else (1,)
    values = (step * power for power in powers(low / 10, high) for step in steps)
    return [value for value in values if low <= value <= high]


def histogram(frame: Frame, edges: Sequence[float], counts: Sequence[int]) -> Drawing:
    """Counts below the first edge, between two edges, and from the last edge on, of shares."""
    box = Box(64, 14, WIDTH - 14, 140)
    step = (box.right - box.left) / len(counts)
    most = max(*counts, 1)
    place = linear(edges[0], edges[-1], box.left + step, box.right - step)
    rise = linear(0, most, box.bottom, box.top)
    columns, labels = across(box, [(place(edge), _percent(edge)) for edge in _quarters(edges)])
    rows, more = upwards(box, [(rise(0), "0"), (rise(most), str(most))])
    bars = []
    for number, count in enumerate(counts):
        if count:
            left = box.left + number * step
            path = bar(left + 1, rise(count), left + step - 1, box.bottom)
            bars.append(Shape(path, "series s0", f"{_interval(edges, number)}: {count}"))
    zero = Shape(line((place(0), box.top), (place(0), box.bottom)), "same")
    ends = below(box, "predicted / measured − 1"), beside(box, frame.unit)
    return framed(frame, box, [*columns, *rows, *bars, zero], [*labels, *more, *ends])


def _quarters(edges: Sequence[float]) -> Iterable[float]:
    """The first and last edge, and what lies at each quarter of the way."""
    return (edges[0] + quarter / 4 * (edges[-1] - edges[0]) for quarter in range(5))


def _interval(edges: Sequence[float], number: int) -> str:
    if number == 0:
        return f"below {_percent(edges[0])}"
    if number == len(edges):
        return f"{_percent(edges[-1])} and above"
    return f"{_percent(edges[number - 1])} to {_percent(edges[number])}"


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−") if round(100 * share) else "0 %"
