"""A recording: one run's events with batch, lengths and depth as variables. No torch here.

A run at five layers per stack is cut into blocks; the middle layer's blocks are played as often
as the model is deep. Sizes, FLOPs and bytes are exact formulas of batch and lengths (see
``polynomials``). Playing answers in milliseconds: allocated peak, who holds it, FLOPs and bytes
of every kernel. ``expansion`` gives the full list of allocations for the allocator replay.

Letters: b micro-batch size, s (source) length, t target length, N units of a stack (a unit is a
layer, or a period of unlike layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.growth import Growth
from peftadvisor.simulator.parts import (
    BASE_UNITS,
    MIDDLE,
    NO_FORMULA,
    ROUNDING_BYTES,
    SHAPE_WIDTH,
    Blocks,
    Events,
    Formulas,
    Integers,
    Kernels,
    Storages,
)
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment


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
class KernelTable:
    """Kernel uses at many points: per use its name, phase and count; the rest use × point.

    ``shapes`` is use × dimension × point, 0 where a use has fewer than ``dimensions``.
    """

    names: tuple[str, ...]
    phase: Integers
    count: Integers
    flops: Integers
    touched_bytes: Integers
    dimensions: Integers
    shapes: Integers


@dataclass(frozen=True, slots=True)
class Peak:
    """The allocated peak at one point: bytes by owner, and the phase and operator it falls in."""

    allocated_bytes: int
    by_owner: Mapping[Owner, int]
    phase: Phase
    operator: str


class _Moves(NamedTuple):
    """Allocations and frees, in order: what evaluating a peak reads of them.

    Per move: its event, sign (+1 allocates), formula and owner, and its stretch, which is a block
    of events with moves in it. Per stretch: its first move and its block.
    """

    event: Integers
    sign: Integers
    formula: NDArray[np.int32]
    owner: NDArray[np.int8]
    stretch: Integers
    start: Integers
    block: NDArray[np.int32]


class _Runs(NamedTuple):
    """Kernel runs of one micro-batch and its update: the use that each counts for, its block.

    ``uses``: name, phase, formulas of FLOPs, bytes and shapes.
    """

    use: Integers
    block: NDArray[np.int32]
    uses: list[tuple[str, Phase, int, int, list[int]]]


@dataclass(frozen=True, eq=False)
class Recording:
    """One recorded run; valid for the regime that ``facts`` states.

    ``growth``, where it is known, says what the method's size (a rank) changes.
    """

    events: Events
    blocks: Blocks
    storages: Storages
    kernels: Kernels
    formulas: Formulas
    facts: Mapping[str, Any]
    growth: Growth | None = None

    def at_size(self, size: int) -> Recording:
        """The same run with the method at another size that ``growth`` holds for."""
        assert self.growth is not None
        assert self.growth.holds_for(size)
        more, old = size - self.growth.size, self.formulas
        return replace(
            self,
            formulas=Formulas(
                old.terms,
                old.coefficients + more * self.growth.coefficients,
                old.depth + more * self.growth.depth,
            ),
            facts=self.growth.facts_at(size, self.facts),
            growth=None,
        )

    def values(self, point: Point, units: Sequence[int]) -> Integers:
        """Every formula's value at one point."""
        return self.values_at([point], units)[:, 0]

    def values_at(self, points: Sequence[Point], units: Sequence[int]) -> Integers:
        """Every formula's value, formula × point; virtual tokens make both lengths longer."""
        longer = self.facts["virtual_tokens"]
        return self.formulas.at(np.asarray(points, dtype=np.int64) + [0, longer, longer], units)

    def parameter_counts(self, units: Sequence[int]) -> list[int]:
        """At these depths: parameters in all, trained, and bytes of the trained."""
        base, layer = self.facts["counts"]["base"], self.facts["counts"]["layer"]
        growth = [np.multiply(c, n - BASE_UNITS) for c, n in zip(layer, units, strict=True)]
        return [int(n) for n in np.sum([base, *growth], axis=0)]

    def allocated_peak(
        self, point: Point, units: Sequence[int], *, accumulate: bool = False
    ) -> int:
        """Allocated peak in bytes at (b, s, t) and these depths, and nothing else.

        With ``accumulate`` the second step has a further micro-batch before its update.
        """
        return int(self.allocated_peaks([point], units, accumulate=accumulate)[0])

    def allocated_peaks(
        self, points: Sequence[Point], units: Sequence[int], *, accumulate: bool = False
    ) -> Integers:
        """Allocated peaks in bytes at many points at once."""
        moves = self._moves if accumulate else self._moves_once
        return self._levels(moves, self._changes(moves, points, units), self.times(units)).max(0)

    def peak(self, point: Point, units: Sequence[int], *, accumulate: bool = False) -> Peak:
        """The allocated peak, who holds it, and where in the step it falls."""
        moves, times = self._moves if accumulate else self._moves_once, self.times(units)
        changes = self._changes(moves, [point], units)
        here = int(np.argmax(self._levels(moves, changes, times)))
        owners = self._held(moves, changes[:, 0], times, here)
        position = int(moves.event[here])
        before = np.flatnonzero(self.events.kind[: position + 1] == Event.KERNEL)
        row = int(self.events.ref[before[-1]]) if len(before) else -1
        return Peak(
            allocated_bytes=sum(owners.values()),
            by_owner=owners,
            phase=Phase(int(self.events.phase[position])),
            operator=self.kernels.names[self.kernels.name[row]] if row >= 0 else "load",
        )

    def times(self, units: Sequence[int]) -> Integers:
        """How often each block is played: the middle layer's N - 4 times, all others once."""
        counts = np.asarray([*units, BASE_UNITS], dtype=np.int64)[self.blocks.stack]
        return np.where(self.blocks.layer == MIDDLE, counts - BASE_UNITS + 1, 1)

    @cached_property
    def _moves(self) -> _Moves:
        """Allocations and frees."""
        return self._selected(self.events.kind != Event.KERNEL)

    @cached_property
    def _moves_once(self) -> _Moves:
        """Allocations and frees without the further micro-batch."""
        once = self.events.segment != Segment.ACCUMULATE
        return self._selected(once & (self.events.kind != Event.KERNEL))

    def _selected(self, chosen: NDArray[np.bool_]) -> _Moves:
        event = np.flatnonzero(chosen)
        ref, block = self.events.ref[event], self.events.block[event]
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        return _Moves(
            event=event,
            sign=np.where(self.events.kind[event] == Event.ALLOC, 1, -1),
            formula=self.storages.formula[ref],
            owner=self.storages.owner[ref],
            start=starts,
            block=block[starts],
            stretch=np.repeat(np.arange(len(starts)), np.diff(starts, append=len(event))),
        )

    def _changes(self, moves: _Moves, points: Sequence[Point], units: Sequence[int]) -> Integers:
        """Bytes that each move adds (allocation) or gives back (free), move × point.

        Rounded as the allocator rounds.
        """
        rounded = -(-self.values_at(points, units) // ROUNDING_BYTES) * ROUNDING_BYTES
        return np.asarray(moves.sign[:, None] * rounded[moves.formula])

    @staticmethod
    def _levels(moves: _Moves, changes: Integers, times: Integers) -> Integers:
        """Bytes held after each move, move × point, in the highest play of its block.

        A block played m times adds its sum S each time, so it peaks in its first play or, if
        S > 0, in its last.
        """
        total = np.add.reduceat(changes, moves.start)
        plays = times[moves.block][:, None]
        before = np.cumsum(total * plays, axis=0) - total * plays
        running = np.cumsum(changes, axis=0)
        base = before + _earlier(total, plays) * total - (running - changes)[moves.start]
        return np.asarray(running + base[moves.stretch])

    @staticmethod
    def _held(moves: _Moves, changes: Integers, times: Integers, position: int) -> dict[Owner, int]:
        """Bytes held by each owner at the peak."""
        stretch, here = moves.stretch, moves.stretch[position]
        total = np.add.reduceat(changes, moves.start)
        copies = _earlier(total, times[moves.block])[here]
        plays = np.where(stretch < here, times[moves.block][stretch], 0)
        plays = np.where(stretch == here, copies, plays)
        plays = plays + ((stretch == here) & (np.arange(len(stretch)) <= position))
        weights = (changes * plays).astype(np.float64)
        held = np.bincount(moves.owner, weights=weights, minlength=len(Owner))
        return {o: int(held[o]) for o in Owner if held[o]}

    def kernel_uses(self, point: Point, units: Sequence[int]) -> tuple[KernelUse, ...]:
        """Kernels of the second step's first micro-batch and of its update, each with its count."""
        values, runs = self.values(point, units).tolist(), self._runs
        return tuple(
            KernelUse(
                name,
                phase,
                count,
                values[flops],
                values[touched],
                tuple([values[f] for f in shapes]),
            )
            for (name, phase, flops, touched, shapes), count in zip(
                runs.uses, self._counts(units).tolist(), strict=True
            )
            if count
        )

    def kernel_table(self, points: Sequence[Point], units: Sequence[int]) -> KernelTable:
        """``kernel_uses`` at many points at once."""
        values, runs = self.values_at(points, units), self._runs
        count = self._counts(units)
        ran = np.flatnonzero(count)
        names, phase, flops, touched, shapes = zip(*[runs.uses[use] for use in ran], strict=True)
        dimensions = np.array([len(shape) for shape in shapes])
        padded = np.array([[*shape, *[0] * (SHAPE_WIDTH - len(shape))] for shape in shapes])
        told = np.arange(SHAPE_WIDTH) < dimensions[:, None]
        return KernelTable(
            names=names,
            phase=np.array(phase, dtype=np.int64),
            count=count[ran],
            flops=values[list(flops)],
            touched_bytes=values[list(touched)],
            dimensions=dimensions,
            shapes=np.where(told[:, :, None], values[padded], 0),
        )

    def flop_counts(self, units: Sequence[int]) -> Integers:
        """Phase × formula: kernels of one micro-batch, or the update, that have these FLOPs."""
        runs, counts = self._runs, self._counts(units)
        table = np.zeros((len(Phase), len(self.formulas.coefficients)), dtype=np.int64)
        places = [use[1] for use in runs.uses], [use[2] for use in runs.uses]
        np.add.at(table, places, counts)
        return table

    def _counts(self, units: Sequence[int]) -> Integers:
        """How often each use runs at these depths."""
        runs = self._runs
        return np.bincount(runs.use, weights=self.times(units)[runs.block]).astype(np.int64)

    @cached_property
    def _runs(self) -> _Runs:
        kernels = self.kernels
        steady = np.isin(self.events.segment, (Segment.STEP_2, Segment.UPDATE_2))
        event = np.flatnonzero(steady & (self.events.kind == Event.KERNEL))
        place = self.events.phase[event].astype(np.int64) * len(kernels.name)
        places, use = np.unique(place + self.events.ref[event], return_inverse=True)
        uses = [
            (
                kernels.names[kernels.name[row]],
                Phase(phase),
                int(kernels.flops[row]),
                int(kernels.touched[row]),
                [f for f in kernels.shapes[row].tolist() if f != NO_FORMULA],
            )
            for phase, row in zip(*np.divmod(places, len(kernels.name)), strict=True)
        ]
        return _Runs(use.ravel(), self.events.block[event], uses)

    def renamed(self, dtype: str, other: str) -> Recording:
        """The same with kernels of one dtype as those of another."""
        names = tuple(name.replace(f".{dtype}", f".{other}") for name in self.kernels.names)
        return replace(self, kernels=replace(self.kernels, names=names))


def _earlier(total: Integers, plays: Integers) -> Integers:
    """Plays of a block before the one in which most is held; it adds ``total`` each time."""
    return np.where(total > 0, plays - 1, 0)
