"""Memory over a run: what is held at each moment, whose it is, and what is going on. No torch.

A moment is the fullest of a stretch of equally many events, so that no peak is lost.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.expansion import play
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import ROUNDING_BYTES, Integers
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment

MOMENTS = 360
"""Most moments that are kept of a run."""

_PARTS: dict[Phase, str] = {
    Phase.LOAD: "load",
    Phase.FORWARD: "forward",
    Phase.LOSS: "forward",
    Phase.BACKWARD: "backward",
    Phase.RECOMPUTE: "backward",
    Phase.OPTIMIZER: "optimizer",
}
_STEPS: dict[Segment, str] = {
    Segment.LOAD: "",
    Segment.STEP_1: "step 1",
    Segment.UPDATE_1: "step 1",
    Segment.STEP_2: "step 2",
    Segment.ACCUMULATE: "step 2, next micro-batch",
    Segment.UPDATE_2: "step 2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is held after one event, in all and by owner, in the order of ``Course.owners``.

    ``tensor_bytes`` is the tensor that was made last, ``owner`` whose it is; ``operator`` ran
    last, in ``layer`` (from 1; 0: outside the layers).
    """

    at: int
    held_bytes: int
    by_owner: tuple[int, ...]
    phase: str
    operator: str
    layer: int
    owner: str
    tensor_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A phase of the run, from one event to before another."""

    phase: str
    step: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Memory over the load and two steps."""

    events: int
    owners: tuple[str, ...]
    moments: tuple[Moment, ...]
    spans: tuple[Span, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Played:
    """Events in the order of the run: kind, row, segment, phase, layer."""

    kind: NDArray[np.int8]
    ref: NDArray[np.int32]
    segment: NDArray[np.int8]
    phase: NDArray[np.int8]
    layer: Integers


def course_of(simulated: Simulated) -> Course:
    """Memory over the run: its load, its first step and its second."""
    played = _played(simulated)
    size, owner = _sizes(simulated, played)
    change = np.where(played.kind == Event.ALLOC, size, -size)
    kept = _fullest(np.cumsum(change))
    owners = [o for o in Owner if ((owner == o) & (size > 0)).any()]
    held = np.stack([np.cumsum(np.where(owner == o, change, 0))[kept] for o in owners], axis=1)
    return Course(
        events=len(change),
        owners=tuple(o.name.lower() for o in owners),
        moments=tuple(_moments(simulated, played, (size, owner), kept, held)),
        spans=tuple(_spans(played)),
    )


def saved_bytes_per_token(simulated: Simulated) -> float:
    """Activations that are held when backward begins, logits aside, per token of a micro-batch."""
    played = _played(simulated)
    size, owner = _sizes(simulated, played)
    first = int(np.argmax(played.phase == Phase.BACKWARD))
    change = np.where(played.kind == Event.ALLOC, size, -size)[:first]
    held = int(change[owner[:first] == Owner.ACTIVATION].sum())
    batch, source, target = simulated.point
    facts = simulated.recording.facts
    tokens = source * facts["uses_source"] + target * facts["uses_target"]
    return held / (batch * tokens)


def _played(simulated: Simulated) -> _Played:
    recording = simulated.recording
    events = recording.events
    order, layer = play(recording, simulated.units)
    if not simulated.accumulate:
        once = events.segment[order] != Segment.ACCUMULATE
        order, layer = order[once], layer[once]
    return _Played(
        events.kind[order], events.ref[order], events.segment[order], events.phase[order], layer
    )


def _sizes(simulated: Simulated, played: _Played) -> tuple[Integers, NDArray[np.int8]]:
    """Bytes that each event allocates or frees (0: a kernel), and whose they are."""
    storages = simulated.recording.storages
    values = simulated.recording.values(simulated.point, simulated.units)
    rounded = -(-values // ROUNDING_BYTES) * ROUNDING_BYTES
    moves = played.kind != Event.KERNEL
    row = np.where(moves, played.ref, 0)
    return np.where(moves, rounded[storages.formula[row]], 0), storages.owner[row]


def _fullest(held: Integers) -> Integers:
    stretches = np.array_split(np.arange(len(held)), min(MOMENTS, len(held)))
    return np.array([part[np.argmax(held[part])] for part in stretches])


def _moments(
    simulated: Simulated,
    played: _Played,
    tensors: tuple[Integers, NDArray[np.int8]],
    kept: Integers,
    held: Integers,
) -> list[Moment]:
    kernels, (size, owner) = simulated.recording.kernels, tensors
    ran = _latest(played.kind == Event.KERNEL)[kept]
    made = _latest(played.kind == Event.ALLOC)[kept]
    names = [kernels.names[kernels.name[played.ref[i]]] if i >= 0 else "load" for i in ran]
    return [
        Moment(
            at=int(at),
            held_bytes=int(parts.sum()),
            by_owner=tuple(parts.tolist()),
            phase=_PARTS[Phase(int(played.phase[at]))],
            operator=name.partition(".")[0],
            layer=int(played.layer[at]) + 1,
            owner=Owner(int(owner[last])).name.lower(),
            tensor_bytes=int(size[last]),
        )
        for at, parts, name, last in zip(kept, held, names, made, strict=True)
    ]


def _latest(marked: NDArray[np.bool_]) -> Integers:
    """Per event, the latest one up to it that is marked; -1 where there is none."""
    return np.maximum.accumulate(np.where(marked, np.arange(len(marked)), -1))


def _spans(played: _Played) -> list[Span]:
    parts = [_PARTS[phase] for phase in Phase]
    part = np.array([parts.index(name) for name in parts])[played.phase]
    step = [*dict.fromkeys(_STEPS.values())]
    number = np.array([step.index(_STEPS[segment]) for segment in Segment])[played.segment]
    place = number * len(parts) + part
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    ends = [*starts[1:].tolist(), len(place)]
    return [
        Span(phase=parts[part[start]], step=step[number[start]], start=int(start), end=end)
        for start, end in zip(starts, ends, strict=True)
    ]
