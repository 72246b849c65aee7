"""Memory over a run, drawn: what owners hold, stacked, with phases marked and the card's line."""

from __future__ import annotations

from collections.abc import Sequence

from peftadvisor.profiles import Timeline
from peftadvisor.report.charts import Limit
from peftadvisor.report.drawing import (
    LINE,
    WIDTH,
    Anchor,
    Box,
    Drawing,
    Key,
    Label,
    Scale,
    Shape,
    area,
    beside,
    line,
    linear,
    round_steps,
    upwards,
)
from peftadvisor.simulator.course import Course, Moment, Span
from peftadvisor.units import GIB, MIB, format_bytes, format_seconds

_NAMED = {
    "weight": "weights",
    "adapter": "adapter",
    "gradient": "gradient",
    "optimizer": "optimizer",
    "activation": "activation",
    "logits": "logits",
    "workspace": "workspace",
    "input": "input",
    "temporary": "temporary",
}
"""Owners from the bottom up, and their names in figures."""
_LETTERS = {"load": "L", "forward": "F", "backward": "B", "optimizer": "O"}
_BOX = Box(50, 40, WIDTH - 12, 210)
_LEAST = 12.0
"""Width of a phase from which its letter is drawn."""


def course_figure(
    course: Course, method: str, limit: Limit | None, without: Sequence[str] = ()
) -> tuple[Drawing, list[float]]:
    """The figure, and where each moment lies in it; ``without`` are owners that are left out."""
    owners = [name for name in _NAMED if name in course.owners and name not in without]
    columns = [course.owners.index(name) for name in owners]
    sums = [sum(m.by_owner[column] for column in columns) / GIB for m in course.moments]
    most = max(limit.value if limit else 0.0, *sums) * 1.04
    place = linear(0, course.events, _BOX.left, _BOX.right)
    rise = linear(0, most, _BOX.bottom, _BOX.top)
    places = [place(moment.at) for moment in course.moments]
    shapes, labels = upwards(_BOX, [(rise(v), f"{v:g}") for v in round_steps(most)])
    upto = [0.0] * len(places)
    for name, column in zip(owners, columns, strict=True):
        above = [u + m.by_owner[column] / GIB for u, m in zip(upto, course.moments, strict=True)]
        curve = area(_points(places, above, rise), _points(places, upto, rise))
        shapes.append(Shape(curve, f"owner {_NAMED[name]}", _NAMED[name]))
        upto = above
    phases = _phases(course.spans, place)
    shapes, labels = [*shapes, *phases[0]], [*labels, *phases[1], beside(_BOX, "GiB")]
    if limit:
        y = rise(limit.value)
        shapes.append(Shape(line((_BOX.left, y), (_BOX.right, y)), "limit", limit.text))
        labels.append(Label(_BOX.right, y + 15, limit.text, "end", "strong"))
    title = f"Memory of {method} over two steps"
    frame = ("course-rest", f"{title}, weights left out") if without else ("course", title)
    return _drawing(course, frame, owners, shapes, labels), places


def _drawing(
    course: Course,
    named: tuple[str, str],
    owners: Sequence[str],
    shapes: Sequence[Shape],
    labels: Sequence[Label],
) -> Drawing:
    fullest = max(course.moments, key=lambda moment: moment.held_bytes)
    return Drawing(
        key=named[0],
        title=named[1],
        description=(
            f"Most is held in {fullest.phase} ({fullest.operator}): "
            f"{format_bytes(fullest.held_bytes)}.",
            "L is the load, F forward, B backward, O the optimizer.",
        ),
        height=_BOX.bottom + 1.6 * LINE,
        shapes=(*shapes, _BOX.outline()),
        labels=tuple(labels),
        wide=True,
        legend=tuple(Key(f"owner {_NAMED[name]}", _NAMED[name]) for name in owners),
    )


def _points(
    places: Sequence[float], values: Sequence[float], rise: Scale
) -> list[tuple[float, float]]:
    return [(x, rise(value)) for x, value in zip(places, values, strict=True)]


def _phases(spans: Sequence[Span], place: Scale) -> tuple[list[Shape], list[Label]]:
    """A line where each phase begins, its letter above, and the names of steps below."""
    shapes, labels = [], []
    for span in spans:
        left, right = place(span.start), place(span.end)
        name = f"{span.phase}, {span.step}" if span.step else span.phase
        shapes.append(Shape(line((left, _BOX.top - 6), (left, _BOX.bottom)), "phase", name))
        if right - left >= _LEAST:
            labels.append(Label((left + right) / 2, _BOX.top - 10, _LETTERS[span.phase]))
    for span in spans:  # a step is named where it begins
        if span.step and span.phase == "forward":
            left = place(span.start)
            labels.append(Label(left + 4, _BOX.bottom + LINE, span.step.split(", ")[-1], "start"))
    return shapes, labels


def moment_words(moment: Moment) -> str:
    """What is going on at a moment."""
    where = f"layer {moment.layer}" if moment.layer else "outside the layers"
    return (
        f"{format_bytes(moment.held_bytes)} held in {moment.phase}, {where}, after "
        f"{moment.operator}; last tensor: {_NAMED[moment.owner]}, "
        f"{format_bytes(moment.tensor_bytes)}"
    )


def timeline_figure(key: str, title: str, timeline: Timeline) -> tuple[Drawing, list[float]]:
    """Bytes held over a profiled run."""
    first, last = timeline.at[0], timeline.at[-1]
    name, size_of = ("GiB", GIB) if max(timeline.held_bytes) >= GIB else ("MiB", MIB)
    most = max(timeline.held_bytes) / size_of * 1.06
    place = linear(first, last, _BOX.left, _BOX.right)
    rise = linear(0, most, _BOX.bottom, _BOX.top)
    places = [place(when) for when in timeline.at]
    held = [size / size_of for size in timeline.held_bytes]
    shapes, labels = upwards(_BOX, [(rise(v), f"{v:g}") for v in round_steps(most)])
    curve = area(_points(places, held, rise), [(x, _BOX.bottom) for x in places])
    ends: list[tuple[float, float, Anchor]] = [
        (_BOX.left, first, "start"),
        (_BOX.right, last, "end"),
    ]
    labels += [
        *(Label(x, _BOX.bottom + LINE, _when(timeline, v), anchor) for x, v, anchor in ends),
        beside(_BOX, name),
    ]
    drawing = Drawing(
        key=key,
        title=title,
        description=(f"At most {format_bytes(max(timeline.held_bytes))} are held.",),
        height=_BOX.bottom + 1.6 * LINE,
        wide=True,
        shapes=(*shapes, Shape(curve, "series s0", title), _BOX.outline()),
        labels=tuple(labels),
    )
    return drawing, places


def moments_of(timeline: Timeline, places: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """What a profiled run held at each place of its figure."""
    told = zip(places, timeline.at, timeline.held_bytes, strict=True)
    return tuple(
        (x, f"{format_bytes(size)} held after {_when(timeline, when)}") for x, when, size in told
    )


def _when(timeline: Timeline, at: float) -> str:
    return format_seconds(at) if timeline.unit == "seconds" else f"{at:,.0f} events"
