"""A recording: one run's events with batch, lengths and depth as variables. No torch here.

A run at five layers per stack is cut into blocks; the middle layer's blocks are played as often
as the model is deep. Sizes, FLOPs and bytes are exact formulas of batch and lengths (see
``polynomials``). Playing answers in milliseconds: allocated peak, who holds it, FLOPs and bytes
of every kernel; expanding gives the full list of allocations for the allocator replay.

Letters: b micro-batch size, s (source) length, t target length, N units of a stack (a unit is a
layer, or a period of unlike layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.polynomials import Point, Term
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment

Integers = NDArray[np.int64]

BASE_UNITS = 5
MIDDLE = 2
ROUNDING_BYTES = 512
"""The caching allocator rounds every allocation up to this."""


@dataclass(frozen=True, slots=True)
class Formulas:
    """Many formulas over shared terms, all integers.

    ``coefficients`` is formula × term; ``depth`` is formula × stack, what one more unit of the
    stack adds to things outside its layers (a list over all weights).
    """

    terms: tuple[Term, ...]
    coefficients: Integers
    depth: Integers

    def at(self, point: Point, units: Sequence[int]) -> Integers:
        """Every formula's value at one (b, s, t) and these depths."""
        values = [int(term.values(np.asarray([point], dtype=np.int64))[0]) for term in self.terms]
        extra = np.asarray(units, dtype=np.int64) - BASE_UNITS
        grid = np.asarray(values, dtype=np.int64)
        return np.asarray(self.coefficients @ grid + self.depth @ extra)


@dataclass(frozen=True, slots=True)
class Events:
    """The events of the base run, in order, one entry each.

    ``kind``, ``ref`` (storage or kernel row), ``segment``, ``phase``; ``block`` numbers the
    maximal stretches that are played together.
    """

    kind: NDArray[np.int8]
    ref: NDArray[np.int32]
    segment: NDArray[np.int8]
    phase: NDArray[np.int8]
    block: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Stretches of events: the stack and base layer (-1: played once, no layer) of each."""

    stack: NDArray[np.int8]
    layer: NDArray[np.int8]
    chain: NDArray[np.int32]
    descending: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Storages:
    """Per storage: its formula, owner, and the same storage of the middle layer (or itself)."""

    formula: NDArray[np.int32]
    owner: NDArray[np.int8]
    canonical: NDArray[np.int32]
    birth_block: NDArray[np.int32]


SHAPE_WIDTH = 10
NO_FORMULA = -1


@dataclass(frozen=True, slots=True)
class Kernels:
    """Per kernel: its name and the formulas of its FLOPs, of the bytes it touches, of its shapes.

    ``shapes`` holds the dimensions of the first two inputs of kernels with FLOPs, one after
    another, padded by NO_FORMULA to SHAPE_WIDTH.
    """

    names: tuple[str, ...]
    name: NDArray[np.int16]
    flops: NDArray[np.int32]
    touched: NDArray[np.int32]
    shapes: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KernelUse:
    """Kernels that cost the same: how often they run per micro-batch (or update), and where."""

    name: str
    phase: Phase
    count: int
    flops: int
    touched_bytes: int
    shapes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Peak:
    """The allocated peak at one point: bytes by owner, and the phase and operator it falls in."""

    allocated_bytes: int
    by_owner: Mapping[Owner, int]
    phase: Phase
    operator: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded run; valid for the regime that ``facts`` states."""

    events: Events
    blocks: Blocks
    storages: Storages
    kernels: Kernels
    formulas: Formulas
    facts: Mapping[str, Any] = field(hash=False)

    def values(self, point: Point, units: Sequence[int]) -> Integers:
        """Every formula's value; virtual tokens make both lengths longer."""
        b, s, t = point
        longer = self.facts["virtual_tokens"]
        return self.formulas.at((b, s + longer, t + longer), units)

    def allocated_peak(
        self, point: Point, units: Sequence[int], *, accumulate: bool = False
    ) -> int:
        """Allocated peak in bytes at (b, s, t) and these depths, and nothing else.

        With ``accumulate`` the second step has a further micro-batch before its update.
        """
        delta, times = self._changes(point, units, accumulate)
        return self._highest(delta, times)[2]

    def _changes(
        self, point: Point, units: Sequence[int], accumulate: bool
    ) -> tuple[Integers, Integers]:
        sizes = _rounded(self.values(point, units)[self.storages.formula])
        return self._deltas(sizes) * self._active(accumulate), self._times(units)

    def peak(self, point: Point, units: Sequence[int], *, accumulate: bool = False) -> Peak:
        """The allocated peak, who holds it, and where in the step it falls."""
        delta, times = self._changes(point, units, accumulate)
        position, copies, _ = self._highest(delta, times)
        owners = self._held(delta, times, position, copies)
        before = np.flatnonzero(self.events.kind[: position + 1] == Event.KERNEL)
        row = int(self.events.ref[before[-1]]) if len(before) else -1
        return Peak(
            allocated_bytes=sum(owners.values()),
            by_owner=owners,
            phase=Phase(int(self.events.phase[position])),
            operator=self.kernels.names[self.kernels.name[row]] if row >= 0 else "load",
        )

    def _active(self, accumulate: bool) -> NDArray[np.bool_]:
        return np.asarray(accumulate | (self.events.segment != Segment.ACCUMULATE))

    def _times(self, units: Sequence[int]) -> Integers:
        """How often each block is played: the middle layer's N - 4 times, all others once."""
        counts = np.asarray([*units, BASE_UNITS], dtype=np.int64)[self.blocks.stack]
        return np.where(self.blocks.layer == MIDDLE, counts - BASE_UNITS + 1, 1)

    def _deltas(self, sizes: Integers) -> Integers:
        """Bytes that each event adds (allocation) or gives back (free)."""
        kind, ref = self.events.kind, self.events.ref
        sign = np.where(kind == Event.ALLOC, 1, np.where(kind == Event.FREE, -1, 0))
        return np.asarray(sign * sizes[np.where(kind == Event.KERNEL, 0, ref)])

    def _starts(self) -> Integers:
        return np.flatnonzero(np.diff(self.events.block, prepend=-1))

    def _highest(self, delta: Integers, times: Integers) -> tuple[int, int, int]:
        """Event and number of earlier plays of its block at which most is held, and how much.

        A block played m times adds its sum S each time, so it peaks in its first play or, if
        S > 0, in its last.
        """
        starts = self._starts()
        total = np.add.reduceat(delta, starts)
        before = np.concatenate(([0], np.cumsum(total * times)[:-1]))
        running = np.cumsum(delta)
        inside = running - (running[starts] - delta[starts])[self.events.block]
        earlier = np.where(total > 0, times - 1, 0)
        level = inside + (before + earlier * total)[self.events.block]
        position = int(np.argmax(level))
        return position, int(earlier[self.events.block[position]]), int(level[position])

    def _held(
        self, delta: Integers, times: Integers, position: int, copies: int
    ) -> dict[Owner, int]:
        """Bytes held by each owner at the peak."""
        block = self.events.block
        here = block[position]
        plays = np.where(block < here, times[block], 0)
        plays = np.where(block == here, copies, plays)
        plays = plays + ((block == here) & (np.arange(len(block)) <= position))
        is_kernel = self.events.kind == Event.KERNEL
        owner = self.storages.owner[np.where(is_kernel, 0, self.events.ref)]
        held = np.bincount(owner, weights=(delta * plays).astype(np.float64), minlength=len(Owner))
        return {o: int(held[o]) for o in Owner if held[o]}

    def kernel_uses(self, point: Point, units: Sequence[int]) -> tuple[KernelUse, ...]:
        """Kernels of the second step's first micro-batch and of its update, each with its count."""
        values, times = self.values(point, units), self._times(units)
        kernels = self.kernels
        steady = np.isin(self.events.segment, (Segment.STEP_2, Segment.UPDATE_2))
        index = np.flatnonzero(steady & (self.events.kind == Event.KERNEL))
        place = (
            self.events.phase[index].astype(np.int64) * len(kernels.name) + self.events.ref[index]
        )
        counts = np.bincount(place, weights=times[self.events.block[index]])
        phases, rows = np.divmod(np.flatnonzero(counts), len(kernels.name))
        return tuple(
            KernelUse(
                name=kernels.names[kernels.name[row]],
                phase=Phase(phase),
                count=int(counts[phase * len(kernels.name) + row]),
                flops=int(values[kernels.flops[row]]),
                touched_bytes=int(values[kernels.touched[row]]),
                shapes=tuple(int(values[f]) for f in kernels.shapes[row] if f != NO_FORMULA),
            )
            for phase, row in zip(phases.tolist(), rows.tolist(), strict=True)
        )

    def condensed(self) -> Recording:
        """The same with kernels that cost the same at every point told once."""
        kernels = self.kernels
        table = np.column_stack([kernels.name, kernels.flops, kernels.touched, kernels.shapes])
        distinct, row = np.unique(table, axis=0, return_inverse=True)
        runs = self.events.kind == Event.KERNEL
        ref = self.events.ref.copy()
        ref[runs] = row.ravel()[ref[runs]]
        return replace(
            self,
            events=replace(self.events, ref=ref),
            kernels=Kernels(
                kernels.names,
                distinct[:, 0].astype(np.int16),
                distinct[:, 1].astype(np.int32),
                distinct[:, 2].astype(np.int32),
                distinct[:, 3:].astype(np.int32),
            ),
        )

    def expand(
        self, point: Point, units: Sequence[int], *, accumulate: bool = False
    ) -> tuple[Integers, Integers]:
        """All allocations and frees in order, for the allocator replay.

        Returns:
            ``events``: +k allocates storage k - 1, -k frees it; ``sizes``: bytes per storage.
        """
        order, layer = self.order(units)
        keep = (self.events.kind != Event.KERNEL) & self._active(accumulate)
        selected = keep[order]
        order, layer = order[selected], layer[selected]
        ref = self.events.ref[order]
        birth = self._birth_layer(order, layer, units)
        key = self.storages.canonical[ref].astype(np.int64) * (max([*units, 1]) + 1) + birth + 1
        unique, storage = np.unique(key, return_inverse=True)
        sizes = np.zeros(len(unique), dtype=np.int64)
        sizes[storage] = self.values(point, units)[self.storages.formula[ref]]
        allocates = self.events.kind[order] == Event.ALLOC
        return np.where(allocates, storage + 1, -(storage + 1)), sizes

    def order(self, units: Sequence[int]) -> tuple[Integers, Integers]:
        """Base events in the order in which they are played, and the layer each is played for."""
        starts = self._starts()
        ends = np.append(starts[1:], len(self.events.block))
        pieces: list[Integers] = []
        layers: list[Integers] = []
        for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
            span = np.arange(start, end)
            for actual in self._layers_played(block, units):
                pieces.append(span)
                layers.append(np.full(len(span), actual))
        return np.concatenate(pieces), np.concatenate(layers)

    def _layers_played(self, block: int, units: Sequence[int]) -> Sequence[int]:
        layer = int(self.blocks.layer[block])
        if layer < 0:
            return (-1,)
        count = units[int(self.blocks.stack[block])]
        if layer == MIDDLE:
            middle = range(MIDDLE, count - MIDDLE)
            return middle[::-1] if self.blocks.descending[block] else middle
        return (layer if layer < MIDDLE else count - BASE_UNITS + layer,)

    def _birth_layer(self, order: Integers, layer: Integers, units: Sequence[int]) -> Integers:
        """The layer in which each event's storage was born.

        First and last layers are themselves; others are at the distance seen in the base run.
        """
        birth_block = self.storages.birth_block[self.events.ref[order]]
        base = self.blocks.layer[birth_block].astype(np.int64)
        stack = self.blocks.stack[birth_block]
        here = self.blocks.layer[self.events.block[order]].astype(np.int64)
        here_stack = self.blocks.stack[self.events.block[order]]
        last = np.asarray([*units, 0], dtype=np.int64)[stack] - 1
        from_ends = np.where(base > MIDDLE, last - (BASE_UNITS - 1) + base, base)
        near = (here_stack == stack) & (np.abs(base - here) < BASE_UNITS - MIDDLE)
        born = np.where(near, layer + base - here, from_ends)
        born = np.where(base == 0, 0, np.where(base == BASE_UNITS - 1, last, born))
        return np.where(base < 0, -1, born)


def _rounded(sizes: Integers) -> Integers:
    return np.asarray(-(-sizes // ROUNDING_BYTES) * ROUNDING_BYTES)
