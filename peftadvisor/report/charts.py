"""The figures that reports are made of: stacked bars, plain bars, dots, lines, a roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftadvisor.report.drawing import (
    LINE,
    WIDTH,
    Box,
    Drawing,
    Key,
    Label,
    Scale,
    Shape,
    across,
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
    round_steps,
    upwards,
)

_LONGEST = 30
"""Characters of a name that are drawn; the whole is in the table beside."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar: its size, class, and what it is."""

    size: float
    style: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A bar; ``band`` is its interval, ``note`` stands at its right, ``href`` is where it leads."""

    name: str
    parts: tuple[Part, ...]
    band: tuple[float, float] | None = None
    note: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A line across bars or curves: where it is, and what of."""

    value: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every figure has: its key, title, sentences, unit and legend."""

    key: str
    title: str
    description: tuple[str, ...]
    unit: str
    legend: tuple[Key, ...] = ()
    wide: bool = False


def bars(frame: Frame, rows: Sequence[Row], limit: Limit | None = None) -> Drawing:
    """Bars one below the other, each under its name; ``limit`` is a line through all of them."""
    high, top = 2 * LINE, 6.0 + LINE * (limit is not None)
    box = Box(10, top, WIDTH - 12, top + high * len(rows) + 2)
    most = max([_end(row) for row in rows] + [limit.value if limit else 0.0])
    place = linear(0, most * 1.04, box.left, box.right)
    ticks = [(place(value), f"{value:g}") for value in round_steps(most * 1.04)]
    shapes, labels = across(box, ticks)
    for number, row in enumerate(rows):
        y = box.top + number * high
        shapes += _bar(row, place, y + LINE, y + 1.8 * LINE)
        labels.append(Label(box.left, y + LINE - 5, _short(row.name), "start", "name"))
        if row.note:
            labels.append(Label(box.right, y + LINE - 5, row.note, "end"))
        if limit:
            x = place(limit.value)
            ends = (x, y + LINE - 2), (x, y + 1.8 * LINE + 2)
            shapes.append(Shape(line(*ends), "limit whole", limit.text))
    if limit:
        labels.append(Label(box.right, box.top - 8, limit.text, "end", "strong"))
    return framed(frame, box, shapes, [*labels, below(box, frame.unit)])


def _bar(row: Row, place: Scale, top: float, bottom: float) -> list[Shape]:
    shapes, upto = [], 0.0
    for part in row.parts:
        if part.size > 0:
            ends = place(upto), place(upto + part.size)
            shapes.append(
                Shape(bar(ends[0], top, ends[1], bottom), part.style, part.text, row.href)
            )
            upto += part.size
    if row.band:
        low, high = map(place, row.band)
        shapes.append(Shape(bar(low, top - 1, high, bottom + 1), "risk", "90 % interval"))
    return shapes


def _end(row: Row) -> float:
    return max(sum(part.size for part in row.parts), row.band[1] if row.band else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A value in two directions; ``low`` to ``high`` is its interval upwards."""

    x: float
    y: float
    text: str
    number: str = ""
    style: str = "spot"
    href: str = ""
    low: float | None = None
    high: float | None = None


def spots(frame: Frame, found: Sequence[Spot], limit: Limit | None, beside_: str) -> Drawing:
    """Numbered discs; heights are shares from 0 to 1. A limit far to the right is left out."""
    box = Box(54, 26, WIDTH - 14, 310)
    least, most = min(spot.x for spot in found) * 0.9, max(spot.x for spot in found) * 1.1
    if limit and limit.value < 2 * most:
        most = max(most, limit.value * 1.04)
    else:
        limit = None
    place, rise = linear(least, most, box.left, box.right), linear(0, 1, box.bottom, box.top)
    shapes, labels = across(box, [(place(v), f"{v:g}") for v in round_between(least, most)])
    more = upwards(box, [(rise(v / 4), f"{v / 4:g}") for v in range(5)])
    shapes, labels = [*shapes, *more[0]], [*labels, *more[1]]
    if limit:
        x = place(limit.value)
        shapes.append(Shape(line((x, box.top), (x, box.bottom)), "limit", limit.text))
        labels.append(Label(box.right, box.top - 8, limit.text, "end", "strong"))
    for spot, x in zip(found, _apart([(place(s.x), rise(s.y)) for s in found]), strict=True):
        y = rise(spot.y)
        if spot.low is not None and spot.high is not None:
            shapes.append(Shape(line((x, rise(spot.low)), (x, rise(spot.high))), "whisker"))
        shapes.append(Shape(dot(x, y, 9), spot.style, spot.text, spot.href))
        labels.append(Label(x, y + 4, spot.number, "middle", "in"))
    ends = [below(box, frame.unit), beside(box, beside_), *labels]
    return framed(frame, box, [box.outline(), *shapes], ends)


def _apart(places: Sequence[tuple[float, float]]) -> list[float]:
    """Places moved to the right, each until its disc lies on none before it."""
    moved: list[tuple[float, float]] = []
    for x, y in places:
        while any(abs(x - there) < 18 and abs(y - high) < 18 for there, high in moved):
            x += 3
        moved.append((x, y))
    return [x for x, _ in moved]


@dataclass(frozen=True, slots=True)
class Step:
    """A point of a sweep: its value, how high, its class and what it says."""

    value: float
    height: float
    style: str
    text: str


def climb(frame: Frame, steps: Sequence[Step], limit: Limit, along: str) -> Drawing:
    """A line through points, its width logarithmic, with the limit that it should stay below."""
    box = Box(54, 26, WIDTH - 18, 250)
    most = max(limit.value, *(step.height for step in steps)) * 1.06
    ends = steps[0].value / 1.15, steps[-1].value * 1.15
    place, rise = logarithmic(*ends, box.left, box.right), linear(0, most, box.bottom, box.top)
    shapes, labels = upwards(box, [(rise(v), f"{v:g}") for v in round_steps(most)])
    labels += _spaced([(place(step.value), f"{step.value:g}") for step in steps], box)
    y = rise(limit.value)
    places = [(place(step.value), rise(step.height)) for step in steps]
    shapes += [
        Shape(line((box.left, y), (box.right, y)), "limit", limit.text),
        Shape(line(*places), "curve"),
    ]
    for step, (x, up) in zip(steps, places, strict=True):
        mark = diamond(x, up) if step.style == "oom" else dot(x, up)
        shapes.append(Shape(mark, f"verdict {step.style}", step.text))
    labels.append(Label(box.right, box.top - 8, limit.text, "end", "strong"))
    ends_ = [below(box, along), beside(box, frame.unit), *labels]
    return framed(frame, box, [box.outline(), *shapes], ends_)


def _spaced(places: Sequence[tuple[float, str]], box: Box) -> list[Label]:
    """Texts below the axis, leaving out those that would lie on others."""
    kept: list[Label] = []
    free = 0.0
    for x, text in places:
        half = 5.5 * len(text)
        if x - half >= free:
            kept.append(Label(x, box.bottom + LINE, text))
            free = x + half + 4
    return kept


def roofline(frame: Frame, found: Sequence[Spot], peak: float | None, bandwidth: float) -> Drawing:
    """FLOP/s over FLOPs per byte, both logarithmic, below what the card's sheet allows."""
    box = Box(62, 26, WIDTH - 14, 310)
    roof = peak or max(spot.y for spot in found)
    lows = min(s.x for s in found), min(s.y for s in found)
    low, high = lows[0] / 2, max(*(s.x for s in found), roof / bandwidth) * 2
    bottom, top = min(lows[1], roof) / 2, roof * 2
    place, rise = (
        logarithmic(low, high, box.left, box.right),
        logarithmic(bottom, top, box.bottom, box.top),
    )
    shapes, labels = across(box, [(place(v), _power(v)) for v in powers(low, high)])
    more = upwards(box, [(rise(v), _tera(v)) for v in powers(bottom, top)])
    shapes, labels = [*shapes, *more[0]], [*labels, *more[1]]
    knee = roof / bandwidth
    start = max(low, bottom / bandwidth)
    slope = [(place(start), rise(start * bandwidth)), (place(knee), rise(roof))]
    flat = [(place(high), rise(roof))] if peak else []
    shapes.append(Shape(line(*slope, *flat), "limit", "What the card's data sheet allows"))
    shapes += [Shape(dot(place(s.x), rise(s.y), 4.5), s.style, s.text) for s in found]
    ends = [below(box, "FLOPs per byte moved"), beside(box, frame.unit), *labels]
    return framed(frame, box, [box.outline(), *shapes], ends)


def _power(value: float) -> str:
    return f"{value:g}" if value < 1e5 else f"{value:.0e}".replace("e+0", "e")


def _tera(value: float) -> str:
    return f"{value / 1e12:g}"


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def framed(frame: Frame, box: Box, shapes: Sequence[Shape], labels: Sequence[Label]) -> Drawing:
    """Shapes and texts in a box as the figure of this frame."""
    return Drawing(
        key=frame.key,
        title=frame.title,
        description=frame.description,
        height=box.bottom + 2 * LINE + 12,
        shapes=tuple(shapes),
        labels=tuple(labels),
        legend=frame.legend,
        wide=frame.wide,
    )
