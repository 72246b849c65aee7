"""Make a recording: run a short model at a few points, find the formulas, cut the layers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.errors import PeftAdvisorError
from peftadvisor.simulator.parts import (
    BASE_UNITS,
    MIDDLE,
    NO_FORMULA,
    SHAPE_WIDTH,
    Blocks,
    Events,
    Formulas,
    Kernels,
    Storages,
)
from peftadvisor.simulator.polynomials import Point, Term, fit
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import NO_LAYER, Event, Trace, total_counts

TAG_BASE = 4096


class InexactError(PeftAdvisorError):
    """The run does not reduce to formulas and repeated layers; it must be simulated directly."""


class SplitError(InexactError):
    """Runs of one piece differ in structure: the piece must be cut further."""


def compile_recording(
    traces: Sequence[Trace], points: Sequence[Point], uses_target: bool, facts: dict[str, Any]
) -> Recording:
    """One recording from runs of one structure at base depth, at different batch and lengths.

    Raises:
        InexactError: a number has no formula, or the layers of a stack do not repeat.
    """
    first = traces[0]
    longer = facts["virtual_tokens"]
    variables = [(b, s + longer, t + longer) for b, s, t in points]
    table = _FormulaTable(variables, uses_target, len(first.stack_units))
    storages = table.rows([t.storage_bytes for t in traces])
    flops = table.rows([t.kernel_flops for t in traces])
    touched = table.sums([t.kernel_touched for t in traces])
    shapes = table.shapes([t.kernel_shapes for t in traces])
    blocks, block_of_event = cut(first)
    kind = np.asarray(first.event_kind, dtype=np.int8)
    ref = np.asarray(first.event_ref, dtype=np.int32)
    names, name = np.unique(np.asarray(first.kernel_name), return_inverse=True)
    birth = np.zeros(len(first.storage_bytes), dtype=np.int32)
    births = kind == Event.ALLOC
    birth[ref[births]] = block_of_event[births]
    canonical = canonical_storages(kind, ref, block_of_event, blocks)
    return Recording(
        events=Events(
            kind=kind,
            ref=ref,
            segment=np.asarray(first.event_segment, dtype=np.int8),
            phase=np.asarray(first.event_phase, dtype=np.int8),
            block=block_of_event,
        ),
        blocks=blocks,
        storages=Storages(
            formula=storages,
            owner=np.asarray(first.storage_owner, dtype=np.int8),
            canonical=canonical,
            birth_block=birth,
        ),
        kernels=Kernels(tuple(map(str, names)), name.astype(np.int16), flops, touched, shapes),
        formulas=table.formulas(),
        facts={**facts, **_counts(first)},
    )


def flattened(trace: Trace) -> Trace:
    """The same run with its layers not told apart: every event is played once."""
    return replace(trace, event_tag=[NO_LAYER] * len(trace.event_tag), stack_units=())


def condensed(recording: Recording) -> Recording:
    """The same with kernels that cost the same at every point told once."""
    kernels = recording.kernels
    table = np.column_stack([kernels.name, kernels.flops, kernels.touched, kernels.shapes])
    distinct, row = np.unique(table, axis=0, return_inverse=True)
    runs = recording.events.kind == Event.KERNEL
    ref = recording.events.ref.copy()
    ref[runs] = row.ravel()[ref[runs]]
    return replace(
        recording,
        events=replace(recording.events, ref=ref),
        kernels=Kernels(
            kernels.names,
            distinct[:, 0].astype(np.int16),
            distinct[:, 1].astype(np.int32),
            distinct[:, 2].astype(np.int32),
            distinct[:, 3:].astype(np.int32),
        ),
    )


def require_same_structure(first: Trace, other: Trace, point: Point) -> None:
    """Raise InexactError unless two runs do the same things, whatever the sizes."""
    for part in ("event_kind", "event_ref", "event_tag", "event_phase", "kernel_name"):
        if getattr(first, part) != getattr(other, part):
            raise SplitError(f"the run at (b, s, t) = {point} has other events than its neighbours")


class _FormulaTable:
    """Collect rows of numbers seen at the points; give each distinct row one formula."""

    def __init__(self, points: Sequence[Point], uses_target: bool, stacks: int) -> None:
        self.points, self.uses_target, self.stacks = points, uses_target, stacks
        self.found: list[tuple[tuple[Term, int], ...]] = []
        self.index: dict[tuple[int, ...], int] = {}
        self.index_of_sum: dict[tuple[int, ...], int] = {}

    def rows(self, columns: Sequence[Sequence[int]]) -> NDArray[np.int32]:
        """The formula number of each quantity, given its values point by point."""
        values = np.asarray(columns, dtype=np.int64).T.reshape(-1, len(columns))
        distinct, inverse = np.unique(values, axis=0, return_inverse=True)
        formulas = fit(distinct, self.points, self.uses_target)
        numbers = []
        for row, formula in zip(distinct, formulas, strict=True):
            if formula is None:
                raise InexactError(f"no formula gives the values {row.tolist()} at {self.points}")
            key = tuple(row.tolist())
            if key not in self.index:
                self.index[key] = len(self.found)
                self.found.append(formula)
            numbers.append(self.index[key])
        return np.asarray(numbers, dtype=np.int32)[inverse.ravel()]

    def sums(self, columns: Sequence[Sequence[tuple[int, ...]]]) -> NDArray[np.int32]:
        """The formula number of each quantity that is given by its parts, point by point."""
        counts = [len(parts) for parts in columns[0]]
        parts = self.rows([[n for parts in column for n in parts] for column in columns])
        splits = np.split(parts, np.cumsum(counts)[:-1])
        numbers = [self._sum(tuple(sorted(map(int, split)))) for split in splits]
        return np.asarray(numbers, dtype=np.int32)

    def shapes(self, columns: Sequence[Sequence[tuple[int, ...]]]) -> NDArray[np.int32]:
        """Formula numbers of every dimension, kernel × SHAPE_WIDTH."""
        counts = [len(parts) for parts in columns[0]]
        parts = self.rows([[n for parts in column for n in parts] for column in columns])
        table = np.full((len(counts), SHAPE_WIDTH), NO_FORMULA, dtype=np.int32)
        for row, numbers in enumerate(np.split(parts, np.cumsum(counts)[:-1])):
            table[row, : min(len(numbers), SHAPE_WIDTH)] = numbers[:SHAPE_WIDTH]
        return table

    def _sum(self, parts: tuple[int, ...]) -> int:
        if parts not in self.index_of_sum:
            total: dict[Term, int] = {}
            for number in parts:
                for term, coefficient in self.found[number]:
                    total[term] = total.get(term, 0) + coefficient
            self.index_of_sum[parts] = len(self.found)
            self.found.append(tuple(total.items()))
        return self.index_of_sum[parts]

    def formulas(self) -> Formulas:
        """All formulas found so far as one table over their terms."""
        terms = sorted({term for formula in self.found for term, _ in formula})
        column = {term: i for i, term in enumerate(terms)}
        table = np.zeros((len(self.found), len(terms)), dtype=np.int64)
        for row, formula in enumerate(self.found):
            for term, coefficient in formula:
                table[row, column[term]] = coefficient
        return Formulas(tuple(terms), table, np.zeros((len(table), self.stacks), dtype=np.int64))


@dataclass(slots=True)
class _Stretch:
    start: int
    end: int
    stack: int
    unit: int
    layer: int = -1
    chain: int = -1
    descending: bool = False


def cut(trace: Trace) -> tuple[Blocks, NDArray[np.int32]]:
    """Cut the events where segment or layer changes, and find the walks through each stack."""
    tag = np.asarray(trace.event_tag, dtype=np.int64)
    segment = np.asarray(trace.event_segment, dtype=np.int64)
    change = (np.diff(tag, prepend=tag[0] - 1) != 0) | (np.diff(segment, prepend=-1) != 0)
    starts = np.flatnonzero(change)
    ends = np.append(starts[1:], len(tag))
    stretches = [
        _Stretch(int(a), int(b), *divmod(int(tag[a]), TAG_BASE))
        if tag[a] >= 0
        else _Stretch(int(a), int(b), -1, -1)
        for a, b in zip(starts, ends, strict=True)
    ]
    _find_chains(stretches, trace)
    block = np.zeros(len(tag), dtype=np.int32)
    for number, stretch in enumerate(stretches):
        block[stretch.start : stretch.end] = number
    return (
        Blocks(
            stack=np.asarray([s.stack if s.layer >= 0 else -1 for s in stretches], dtype=np.int8),
            layer=np.asarray([s.layer for s in stretches], dtype=np.int8),
            chain=np.asarray([s.chain for s in stretches], dtype=np.int32),
            descending=np.asarray([s.descending for s in stretches], dtype=np.bool_),
        ),
        block,
    )


def _find_chains(stretches: list[_Stretch], trace: Trace) -> None:
    """Mark walks 1-2-3 or 3-2-1 through a stack: what its middle layer does, in which direction.

    Layers 0, 1, 3 and 4 are played once wherever they act; layer 2 must act between 1 and 3.
    """
    for number, stretch in enumerate(stretches):
        stretch.layer = stretch.unit
        if stretch.unit != MIDDLE:
            continue
        walk = stretches[max(0, number - 1) : number + 2]
        order = tuple(s.unit for s in walk)
        around = (MIDDLE - 1, MIDDLE, MIDDLE + 1)
        if order not in (around, around[::-1]) or len({s.stack for s in walk}) > 1:
            raise InexactError(
                f"a middle layer acts alone at event {stretch.start} of {len(trace.event_kind)}"
            )
        for neighbour in walk:
            neighbour.chain, neighbour.descending = number, order != around
        _require_alike(walk, trace)


def _require_alike(walk: list[_Stretch], trace: Trace) -> None:
    """Layers 1, 2 and 3 must allocate the same sizes in the same order.

    They may free differently (layer 1 is often the last user of something born in layer 0):
    each is played as itself, and only births are matched between them.
    """

    def births(stretch: _Stretch) -> list[int]:
        events = range(stretch.start, stretch.end)
        return [
            trace.storage_bytes[trace.event_ref[i]]
            for i in events
            if trace.event_kind[i] == Event.ALLOC
        ]

    layers = {s.unit: s for s in walk}
    middle = births(layers[MIDDLE])
    for unit in (MIDDLE - 1, MIDDLE + 1):
        if births(layers[unit]) != middle:
            raise InexactError(f"layers {unit} and {MIDDLE} of a stack allocate differently")


def canonical_storages(
    kind: NDArray[np.int8], ref: NDArray[np.int32], block: NDArray[np.int32], blocks: Blocks
) -> NDArray[np.int32]:
    """For storages of layers 1 and 3, the one born at the same place of layer 2; else itself."""
    births = np.flatnonzero(kind == Event.ALLOC)
    canonical = np.arange(len(births), dtype=np.int32)
    by_place: dict[tuple[int, int, int], int] = {}
    counter: dict[int, int] = {}
    places: list[tuple[int, int, int, int]] = []
    for event in births:
        number = int(block[event])
        layer, chain = int(blocks.layer[number]), int(blocks.chain[number])
        if chain >= 0 and 0 < layer < BASE_UNITS - 1:
            ordinal = counter.get(number, 0)
            counter[number] = ordinal + 1
            places.append((int(ref[event]), chain, layer, ordinal))
            if layer == MIDDLE:
                by_place[chain, MIDDLE, ordinal] = int(ref[event])
    for storage, chain, _, ordinal in places:
        canonical[storage] = by_place[chain, MIDDLE, ordinal]
    return canonical


def _counts(trace: Trace) -> dict[str, Any]:
    """Parameter counts at base depth; what a unit of each stack adds is learned by ``deepen``."""
    layer = [[0, 0, 0]] * len(trace.stack_units)
    return {"counts": {"base": total_counts(trace.parameters_by_tag), "layer": layer}}
