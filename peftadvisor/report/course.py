"""Memory over a run, drawn: what owners hold, stacked, with phases marked and the card's line."""

from __future__ import annotations

from collections.abc import Sequence

from peftadvisor.profiles import Timeline
from peftadvisor.report.charts import Limit
from peftadvisor.report.drawing import (
    LINE,
    WIDE,
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
from peftadvisor.units import GIB, MIB, format_bytes

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
_BOX = Box(58, 44, WIDE - 14, 330)
_LEAST = 14.0
"""Width of a phase from which its letter is drawn."""


def course_figure(course: Course, method: str, limit: Limit) -> tuple[Drawing, list[float]]:
    """The figure, and where each moment lies in it."""
    owners = [name for name in _NAMED if name in course.owners]
    columns = [course.owners.index(name) for name in owners]
    most = max(limit.value, *(m.held_bytes / GIB for m in course.moments)) * 1.04
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
    y = rise(limit.value)
    shapes += [*phases[0], Shape(line((_BOX.left, y), (_BOX.right, y)), "limit", limit.text)]
    labels += [
        *phases[1],
        Label(_BOX.right, y - 6 if y > _BOX.top + 30 else y + 16, limit.text, "end", "strong"),
        beside(_BOX, "GiB"),
    ]
    return _drawing(course, method, owners, shapes, labels), places


def _drawing(
    course: Course,
    method: str,
    owners: Sequence[str],
    shapes: Sequence[Shape],
    labels: Sequence[Label],
) -> Drawing:
    fullest = max(course.moments, key=lambda moment: moment.held_bytes)
    return Drawing(
        key="course",
        title=f"Memory of {method} over two steps",
        description=(
            f"Most is held in {fullest.phase} ({fullest.operator}): "
            f"{format_bytes(fullest.held_bytes)}.",
            "L is the load, F forward, B backward, O the optimizer.",
        ),
        width=WIDE,
        height=_BOX.bottom + 2 * LINE,
        shapes=tuple([*shapes, _BOX.outline()]),
        labels=tuple(labels),
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
            labels.append(Label((left + right) / 2, _BOX.top - 12, _LETTERS[span.phase]))
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
    most = max(timeline.held_bytes) / MIB * 1.06
    place = linear(first, last, _BOX.left, _BOX.right)
    rise = linear(0, most, _BOX.bottom, _BOX.top)
    places = [place(when) for when in timeline.at]
    held = [size / MIB for size in timeline.held_bytes]
    shapes, labels = upwards(_BOX, [(rise(v), f"{v:g}") for v in round_steps(most)])
    curve = area(_points(places, held, rise), [(x, _BOX.bottom) for x in places])
    unit = "s" if timeline.unit == "seconds" else "events"
    ends = [(_BOX.left, first, "start"), (_BOX.right, last, "end")]
    labels += [
        *(Label(x, _BOX.bottom + LINE, f"{v:.4g} {unit}", anchor) for x, v, anchor in ends),
        beside(_BOX, "MiB"),
    ]
    drawing = Drawing(
        key=key,
        title=title,
        description=(f"At most {format_bytes(max(timeline.held_bytes))} are held.",),
        width=WIDE,
        height=_BOX.bottom + 2 * LINE,
        shapes=(*shapes, Shape(curve, "series s0", title), _BOX.outline()),
        labels=tuple(labels),
    )
    return drawing, places


def moments_of(timeline: Timeline, places: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """What a profiled run held at each place of its figure."""
    unit = " s" if timeline.unit == "seconds" else " events"
    told = zip(places, timeline.at, timeline.held_bytes, strict=True)
    return tuple((x, f"{format_bytes(size)} held after {when:.4g}{unit}") for x, when, size in told)
