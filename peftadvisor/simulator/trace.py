"""What one simulated run did: every storage's birth, death, size and owner, and every kernel.

A ``Trace`` is made of three parallel tables of integers. Events refer to rows of the storage
and kernel tables. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Segment(IntEnum):
    """The parts of a two-step run, in order.

    A run without gradient accumulation is every segment but ACCUMULATE; with accumulation
    the second step has a further micro-batch whose gradients are added to those that exist.
    """

    LOAD = 0
    STEP_1 = 1
    UPDATE_1 = 2
    STEP_2 = 3
    ACCUMULATE = 4
    UPDATE_2 = 5


class Phase(IntEnum):
    """What the run is doing when something happens."""

    LOAD = 0
    FORWARD = 1
    LOSS = 2
    BACKWARD = 3
    RECOMPUTE = 4
    OPTIMIZER = 5


class Owner(IntEnum):
    """Whom a storage belongs to."""

    TEMPORARY = 0
    WEIGHT = 1
    ADAPTER = 2
    GRADIENT = 3
    OPTIMIZER = 4
    ACTIVATION = 5
    LOGITS = 6
    WORKSPACE = 7
    INPUT = 8


class Event(IntEnum):
    """Kinds of event; ``ref`` is a storage for ALLOC and FREE, a kernel for KERNEL."""

    ALLOC = 0
    FREE = 1
    KERNEL = 2


NO_LAYER = -1
"""Tag of what happens outside every repeated layer."""


def layer_tag(stack: int, unit: int) -> int:
    """The tag of unit ``unit`` (a layer, or a period of unlike layers) of stack ``stack``."""
    return stack * 4096 + unit


@dataclass(slots=True)
class Trace:
    """The record of one run; lists grow while it is traced.

    ``event_*``: kind, row it refers to, layer tag, segment, phase.
    ``storage_*``: size in bytes, owner, layer tag at birth.
    ``kernel_*``: operator name, FLOPs (1 MAC = 2 FLOPs), bytes of each tensor read or
    written, and for kernels with FLOPs the shapes of their first two inputs, one after another.
    ``parameters_by_tag``: per layer tag, parameters in all, trained, and bytes of the trained.
    """

    event_kind: list[int] = field(default_factory=list)
    event_ref: list[int] = field(default_factory=list)
    event_tag: list[int] = field(default_factory=list)
    event_segment: list[int] = field(default_factory=list)
    event_phase: list[int] = field(default_factory=list)
    storage_bytes: list[int] = field(default_factory=list)
    storage_owner: list[int] = field(default_factory=list)
    storage_tag: list[int] = field(default_factory=list)
    kernel_name: list[str] = field(default_factory=list)
    kernel_flops: list[int] = field(default_factory=list)
    kernel_touched: list[tuple[int, ...]] = field(default_factory=list)
    kernel_shapes: list[tuple[int, ...]] = field(default_factory=list)
    stack_units: tuple[int, ...] = ()
    parameters_by_tag: dict[int, tuple[int, int, int]] = field(default_factory=dict)


def held_bytes(
    trace: Trace, *, accumulate: bool = False, block_bytes: int = 1
) -> NDArray[np.int64]:
    """Bytes held after each event, every storage rounded up to whole blocks.

    Without ``accumulate`` the accumulating micro-batch changes nothing.
    """
    kind, ref = np.asarray(trace.event_kind), np.asarray(trace.event_ref)
    size = -(-np.asarray(trace.storage_bytes, dtype=np.int64) // block_bytes) * block_bytes
    change = np.where(kind == Event.ALLOC, 1, np.where(kind == Event.FREE, -1, 0))
    change *= size[np.where(kind == Event.KERNEL, 0, ref)]
    if not accumulate:
        change[np.asarray(trace.event_segment) == Segment.ACCUMULATE] = 0
    held: NDArray[np.int64] = np.cumsum(change)
    return held


def total_counts(by_tag: Mapping[int, tuple[int, int, int]]) -> list[int]:
    """``parameters_by_tag`` added up over the model."""
    return [sum(counts[i] for counts in by_tag.values()) for i in range(3)]


def replay_events(trace: Trace, *, accumulate: bool = False) -> tuple[list[int], list[int]]:
    """A trace as the allocator replay takes it: +k allocates storage k, -k frees it; sizes.

    Storages count from 1. Without ``accumulate`` the accumulating micro-batch is left out.
    """
    events = [
        ref + 1 if kind == Event.ALLOC else -(ref + 1)
        for kind, ref, segment in zip(
            trace.event_kind, trace.event_ref, trace.event_segment, strict=True
        )
        if kind != Event.KERNEL and (accumulate or segment != Segment.ACCUMULATE)
    ]
    return events, trace.storage_bytes
