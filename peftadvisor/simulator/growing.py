"""What the size of a method changes in a recording, learned from runs at another size. No torch.

A rank is a variable like batch and length: every number of the run is a formula, and the
difference between two ranks, divided by how far they are apart, is what one more rank adds to its
coefficients. Numbers that are alike at one size only (a rank of 8, 8 key heads) are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.deepening import verify
from peftadvisor.simulator.expansion import play
from peftadvisor.simulator.growth import Growth
from peftadvisor.simulator.parts import (
    BASE_UNITS,
    NO_FORMULA,
    SHAPE_WIDTH,
    Formulas,
    Integers,
    Kernels,
)
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recorder import InexactError, canonical_storages, condensed, cut
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Trace, total_counts


class DirectRun(NamedTuple):
    """A run that was traced, where, and how many units each stack had."""

    trace: Trace
    point: Point
    units: list[int]


def grow(recording: Recording, sizes: tuple[int, int], runs: Sequence[DirectRun]) -> Recording:
    """The recording, made at the first of two sizes, with what each size more adds to it.

    ``runs`` are at the second size: some of base depth, then one per stack that is deeper. The
    result holds for both sizes; ``require_same`` tells whether it holds for another.

    Raises:
        InexactError: the runs do other things, or a number does not grow evenly.
    """
    recording = _as_run(recording, runs[0].trace)
    seen = [_seen(recording, run) for run in runs]
    solver = _Solver(recording, sizes, runs)
    storages = solver.numbers(
        recording.storages.formula, np.column_stack([bytes_ for bytes_, _ in seen])
    )
    ref, kernels = _kernels(recording, solver, [costs for _, costs in seen])
    formulas, coefficients, depth = solver.formulas()
    growth = Growth(
        size=sizes[0],
        low=min(sizes),
        high=max(sizes),
        coefficients=coefficients,
        depth=depth,
        counts=_counts(recording, runs, sizes[1] - sizes[0]),
    )
    return condensed(
        replace(
            recording,
            events=replace(recording.events, ref=ref),
            storages=replace(recording.storages, formula=storages),
            kernels=kernels,
            formulas=formulas,
            growth=growth,
        )
    )


def _as_run(recording: Recording, trace: Trace) -> Recording:
    """The recording with its events in the order of a trace, whatever the sizes of things.

    What is freed at one moment may be freed in another order since it was recorded.

    Raises:
        InexactError: the trace does other things.
    """
    blocks, block = cut(trace)
    kind = np.asarray(trace.event_kind, dtype=np.int8)
    seen = np.asarray(trace.event_ref, dtype=np.int32)
    ref = np.where(kind == Event.KERNEL, 0, seen)
    old, runs = recording.events, kind == Event.KERNEL
    if not np.array_equal(old.kind, kind):
        raise InexactError("the method does other things at another size")
    ref[runs] = old.ref[runs]
    stays = kind != Event.FREE
    birth = block[kind == Event.ALLOC]
    canonical = canonical_storages(kind, seen, block, blocks)
    alike = [
        (_frees_sorted(old.kind, old.ref), _frees_sorted(kind, ref)),
        (old.segment, trace.event_segment),
        (old.phase, trace.event_phase),
        (recording.blocks.stack[old.block][stays], blocks.stack[block][stays]),
        (recording.blocks.layer[old.block][stays], blocks.layer[block][stays]),
        (recording.storages.owner, trace.storage_owner),
        (recording.storages.canonical, canonical),
    ]
    if not all(np.array_equal(ours, theirs) for ours, theirs in alike):
        raise InexactError("the method does other things at another size")
    return replace(
        recording,
        events=replace(old, ref=ref, block=block),
        blocks=blocks,
        storages=replace(recording.storages, birth_block=birth),
    )


def _frees_sorted(kind: NDArray[np.int8], ref: NDArray[np.int32]) -> NDArray[np.int32]:
    """What events refer to, frees that follow each other put in order."""
    free = kind == Event.FREE
    stretch = np.cumsum(~free | ~np.insert(free[:-1], 0, False))
    return ref[np.lexsort((ref, stretch))]


def _seen(recording: Recording, run: DirectRun) -> tuple[Integers, Integers]:
    """In a direct run: the bytes of each storage; FLOPs, bytes and shapes of each kernel run.

    Both in the order of the recording's events; what is played more than once must be the same.
    """
    trace, events = run.trace, recording.events
    order, _ = play(recording, run.units)
    kind, ref = np.asarray(trace.event_kind), np.asarray(trace.event_ref)
    if not np.array_equal(events.kind[order], kind):
        raise InexactError("the method does other things at another size")
    births, runs = kind == Event.ALLOC, kind == Event.KERNEL
    names = np.asarray(recording.kernels.names)[recording.kernels.name[events.ref[order][runs]]]
    if names.tolist() != [trace.kernel_name[row] for row in ref[runs].tolist()]:
        raise InexactError("the method computes other things at another size")
    return (
        _each(order[births], np.asarray(trace.storage_bytes, dtype=np.int64)[ref[births]]),
        _each(order[runs], _costs(trace)[ref[runs]]),
    )


def _costs(trace: Trace) -> Integers:
    """FLOPs, bytes and shapes of each kernel of a trace, as a recording keeps them."""
    table = np.full((len(trace.kernel_name), 2 + SHAPE_WIDTH), NO_FORMULA, dtype=np.int64)
    table[:, 0] = trace.kernel_flops
    table[:, 1] = [sum(parts) for parts in trace.kernel_touched]
    for row, shapes in enumerate(trace.kernel_shapes):
        if shapes:
            table[row, 2 : 2 + len(shapes)] = shapes[:SHAPE_WIDTH]
    return table


def _each(places: Integers, values: Integers) -> Integers:
    """The value at each place, which must be the same whenever the place is played."""
    _, first, inverse = np.unique(places, return_index=True, return_inverse=True)
    if not np.array_equal(values[first][inverse.ravel()], values):
        raise InexactError("the layers of a stack are unlike at another size")
    return values[first]


def _kernels(
    recording: Recording, solver: _Solver, costs: Sequence[Integers]
) -> tuple[NDArray[np.int32], Kernels]:
    """Kernels told apart by what they cost at any size: each event's row, and the rows."""
    events, old = recording.events, recording.kernels
    runs = events.kind == Event.KERNEL
    together = np.column_stack([events.ref[runs], *costs])
    rows, row = np.unique(together, axis=0, return_inverse=True)
    was = rows[:, 0]
    formulas = np.column_stack([old.flops[was], old.touched[was], old.shapes[was]])
    by_run = rows[:, 1:].reshape(len(rows), len(costs), -1)
    numbers = solver.numbers(formulas.ravel(), by_run.swapaxes(1, 2).reshape(-1, len(costs)))
    numbers = numbers.reshape(formulas.shape)
    ref = events.ref.copy()
    ref[runs] = row.ravel()
    made = Kernels(old.names, old.name[was], numbers[:, 0], numbers[:, 1], numbers[:, 2:])
    return ref, made


class _Solver:
    """Find what one more size adds to formulas, from their values in the runs at another size."""

    def __init__(
        self, recording: Recording, sizes: tuple[int, int], runs: Sequence[DirectRun]
    ) -> None:
        self.old, self.size, self.step = recording.formulas, sizes[0], sizes[1] - sizes[0]
        self.before = np.column_stack([recording.values(run.point, run.units) for run in runs])
        self.extra = np.asarray([run.units for run in runs], dtype=np.int64) - BASE_UNITS
        longer = recording.facts["virtual_tokens"]
        points = [(b, s + longer, t + longer) for b, s, t in (run.point for run in runs)]
        grid = np.asarray(points, dtype=np.int64)
        self.grid = np.column_stack([term.values(grid) for term in self.old.terms])
        self.shallow = ~self.extra.any(axis=1)
        self.index: dict[tuple[int, ...], int] = {}

    def numbers(self, formulas: NDArray[Any], seen: Integers) -> NDArray[np.int32]:
        """The number of each formula with its growth, given its values in all runs."""
        rows = np.column_stack([formulas, seen])
        distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
        found = [self._number(int(row[0]), row[1:]) for row in distinct]
        return np.asarray(found, dtype=np.int32)[inverse.ravel()]

    def _number(self, formula: int, seen: Integers) -> int:
        if formula == NO_FORMULA:
            if (seen != NO_FORMULA).any():
                raise InexactError("a shape has other dimensions at another size")
            return NO_FORMULA
        each, rest = np.divmod(seen - self.before[formula], self.step)
        if rest.any():
            raise InexactError("a number does not grow evenly with the size")
        coefficients = self._coefficients(formula, each)
        left = each - self.grid @ coefficients
        depth = np.zeros(self.extra.shape[1], dtype=np.int64)
        for run in np.flatnonzero(left):
            (stack,) = np.flatnonzero(self.extra[run])
            depth[stack], rest = np.divmod(left[run], self.extra[run, stack])
            if rest:
                raise InexactError("a number does not grow evenly with the depth")
        now = (*self.old.coefficients[formula].tolist(), *self.old.depth[formula].tolist())
        key = (*now, *coefficients.tolist(), *depth.tolist())
        return self.index.setdefault(key, len(self.index))

    def _coefficients(self, formula: int, each: Integers) -> Integers:
        """What each size more adds per term: nothing, its share of all, or to the fewest terms.

        What grows is part of what was there, so it has no terms of its own.
        """
        old = self.old.coefficients[formula]
        grid, wanted = self.grid[self.shallow], each[self.shallow]
        share, rest = np.divmod(old, self.size)
        for guess in (np.zeros_like(old), share):
            if np.array_equal(grid @ guess, wanted) and not (guess is share and rest.any()):
                return guess
        terms = np.flatnonzero(old)
        for count in range(1, len(wanted)):
            for chosen in combinations(terms.tolist(), count):
                part = grid[:, chosen].astype(np.float64)
                found = np.zeros_like(old)
                found[list(chosen)] = np.rint(np.linalg.lstsq(part, wanted, rcond=None)[0])
                if np.array_equal(grid @ found, wanted):
                    return found
        raise InexactError("a number does not grow evenly with the size")

    def formulas(self) -> tuple[Formulas, Integers, Integers]:
        """All formulas found so far; what one more size adds to coefficients, and to depth."""
        terms, stacks = len(self.old.terms), self.extra.shape[1]
        table = np.asarray(list(self.index), dtype=np.int64).reshape(-1, 2 * (terms + stacks))
        now, depth, more, deeper = np.split(table, np.cumsum([terms, stacks, terms]), axis=1)
        return Formulas(self.old.terms, now.copy(), depth.copy()), more.copy(), deeper.copy()


def _counts(recording: Recording, runs: Sequence[DirectRun], step: int) -> dict[str, list[Any]]:
    """What one more size adds to parameter counts at base depth, and with each unit of a stack."""
    seen = [np.asarray(total_counts(run.trace.parameters_by_tag)) for run in runs]
    before = [np.asarray(recording.parameter_counts(run.units)) for run in runs]
    added = [_exactly(now - was, step) for now, was in zip(seen, before, strict=True)]
    layer = [
        _exactly(more - added[0], sum(run.units) - BASE_UNITS * len(run.units)).tolist()
        for run, more in zip(runs, added, strict=True)
        if run.units != runs[0].units
    ]
    return {"base": added[0].tolist(), "layer": layer}


def _exactly(numbers: Integers, parts: int) -> Integers:
    each, rest = np.divmod(numbers, parts)
    if rest.any():
        raise InexactError("parameters do not grow evenly with the size")
    return each


def widened(recording: Recording, low: int, high: int) -> Recording:
    """The same, said to hold from ``low`` to ``high`` and for all sizes that it held for."""
    growth = recording.growth
    assert growth is not None
    wider = replace(growth, low=min(low, growth.low), high=max(high, growth.high))
    return replace(recording, growth=wider)


def require_same(recording: Recording, run: DirectRun) -> None:
    """Hold a recording against a direct run: every allocation, free and kernel, and what it costs.

    Raises:
        InexactError: they differ.
    """
    verify(recording, run.trace, run.point, run.units)
    if recording.parameter_counts(run.units) != total_counts(run.trace.parameters_by_tag):
        raise InexactError("parameters are counted otherwise than in the direct run")
    _, costs = _seen(recording, run)
    values, kernels = recording.values(run.point, run.units), recording.kernels
    rows = recording.events.ref[recording.events.kind == Event.KERNEL]
    formulas = np.column_stack([kernels.flops, kernels.touched, kernels.shapes])[rows]
    told = np.where(formulas == NO_FORMULA, NO_FORMULA, values[formulas])
    different = np.flatnonzero((told != costs).any(axis=1))
    if len(different):
        name = kernels.names[kernels.name[rows[different[0]]]]
        raise InexactError(f"{len(different)} kernels cost something else, the first is {name}")
