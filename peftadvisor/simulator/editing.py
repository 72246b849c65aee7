"""A recording changed after the fact: storages made larger or smaller, allocations added."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.parts import (
    BASE_UNITS,
    MIDDLE,
    Blocks,
    Events,
    Formulas,
    Integers,
    Storages,
)
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment

_SPACE = 256
_HERE = _SPACE // 2
"""Blocks get keys so far apart that others fit in between; a block's own lies half way."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where events are added: before the event at ``position``, in the block with this key."""

    position: int
    key: int
    phase: Phase
    segment: Segment


@dataclass(slots=True)
class Draft:
    """A recording under change. ``formula`` and ``ref`` may be written to directly."""

    recording: Recording
    formula: NDArray[np.int32] = field(init=False)
    ref: NDArray[np.int32] = field(init=False)
    starts: Integers = field(init=False)
    ends: Integers = field(init=False)
    _formulas: list[tuple[Integers, Integers]] = field(default_factory=list)
    _storages: list[tuple[int, int, int, int]] = field(default_factory=list)
    _events: list[tuple[int, int, Event, int, Segment, Phase]] = field(default_factory=list)
    _blocks: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Set what is written to, and where each block starts and ends."""
        events = self.recording.events
        self.formula = self.recording.storages.formula.copy()
        self.ref = events.ref.copy()
        self.starts = np.flatnonzero(np.diff(events.block, prepend=-1))
        self.ends = np.append(self.starts[1:], len(events.block))

    def start_of(self, block: int) -> Place:
        """The first place within a block."""
        return self._within(block, int(self.starts[block]), int(self.starts[block]))

    def end_of(self, block: int) -> Place:
        """The last place within a block."""
        return self._within(block, int(self.ends[block]), int(self.ends[block]) - 1)

    def _within(self, block: int, position: int, like: int) -> Place:
        events = self.recording.events
        phase, segment = Phase(int(events.phase[like])), Segment(int(events.segment[like]))
        return Place(position, block * _SPACE + _HERE, phase, segment)

    def behind(self, event: int) -> Place:
        """Right behind an event, in its block."""
        return self._within(int(self.recording.events.block[event]), event + 1, event)

    def before(self, segment: Segment) -> Place:
        """A new block outside all layers, ahead of a segment."""
        first = int(self.recording.events.block[self.recording.events.segment == segment][0])
        place = self.start_of(first)
        self._blocks[first * _SPACE] = (-1, -1)
        return replace(place, key=first * _SPACE)

    def after(self, segment: Segment, stack: int = -1, layer: int = -1) -> Place:
        """A new block behind a segment: outside all layers, or played for this layer."""
        last = int(self.recording.events.block[self.recording.events.segment == segment][-1])
        place = self.end_of(last)
        key = place.key + 1 + (stack + 1) * (BASE_UNITS + 1) + layer + 1
        self._blocks[key] = (stack, layer)
        return replace(place, key=key)

    def total(self, formulas: Integers, times: int = 1) -> int:
        """A new formula: the sum of these, that many times."""
        old = self.recording.formulas
        return self._formula(
            times * old.coefficients[formulas].sum(axis=0), times * old.depth[formulas].sum(axis=0)
        )

    def share(self, formula: int, parts: int) -> int:
        """A new formula: one of so many parts, rounded up."""
        old = self.recording.formulas
        return self._formula(
            -(-old.coefficients[formula] // parts), -(-old.depth[formula] // parts)
        )

    def _formula(self, coefficients: Integers, depth: Integers) -> int:
        self._formulas.append((coefficients, depth))
        return len(self.recording.formulas.coefficients) + len(self._formulas) - 1

    def allocate(self, at: Place, formula: int, owner: Owner, like: int | None = None) -> int:
        """Allocate a new storage; ``like`` is that of the middle layer where there is one."""
        row = len(self.formula) + len(self._storages)
        self._storages.append((formula, int(owner), row if like is None else like, at.key))
        self._events.append((at.position, at.key, Event.ALLOC, row, at.segment, at.phase))
        return row

    def free(self, at: Place, row: int) -> None:
        """Free a storage."""
        self._events.append((at.position, at.key, Event.FREE, row, at.segment, at.phase))

    def finished(self) -> Recording:
        """The recording with all changes."""
        old = self.recording
        used = {event[1] for event in self._events}
        keys = np.asarray(sorted({*self._old_keys().tolist(), *used}), dtype=np.int64)
        return replace(
            old,
            events=self._with_events(keys),
            blocks=self._with_blocks(keys),
            storages=self._with_storages(keys),
            formulas=self._with_formulas(),
            growth=None,
        )

    def _old_keys(self) -> Integers:
        return np.arange(len(self.starts)) * _SPACE + _HERE

    def _with_formulas(self) -> Formulas:
        old = self.recording.formulas
        if not self._formulas:
            return old
        coefficients, depth = (np.asarray(rows) for rows in zip(*self._formulas, strict=True))
        return Formulas(
            old.terms, np.vstack([old.coefficients, coefficients]), np.vstack([old.depth, depth])
        )

    def _with_events(self, keys: Integers) -> Events:
        old = self.recording.events
        added = sorted(self._events, key=lambda event: event[:2])
        table = np.asarray(added, dtype=np.int64).reshape(-1, 6)
        at, key, kind, ref, segment, phase = table.T
        block = np.insert(self._old_keys()[old.block], at, key)
        return Events(
            kind=np.insert(old.kind, at, kind),
            ref=np.insert(self.ref, at, ref),
            segment=np.insert(old.segment, at, segment),
            phase=np.insert(old.phase, at, phase),
            block=np.searchsorted(keys, block).astype(np.int32),
        )

    def _with_blocks(self, keys: Integers) -> Blocks:
        old, places = self.recording.blocks, np.searchsorted(keys, self._old_keys())
        stack, layer = np.full(len(keys), -1, np.int8), np.full(len(keys), -1, np.int8)
        chain, descending = np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.bool_)
        stack[places], layer[places] = old.stack, old.layer
        chain[places], descending[places] = old.chain, old.descending
        for key in set(self._blocks) & set(keys.tolist()):
            its_stack, its_layer = self._blocks[key]
            here = int(np.searchsorted(keys, key))
            stack[here], layer[here] = its_stack, its_layer
        return Blocks(stack, layer, chain, descending)

    def _with_storages(self, keys: Integers) -> Storages:
        old = self.recording.storages
        table = np.asarray(self._storages, dtype=np.int64).reshape(-1, 4)
        birth = np.concatenate([self._old_keys()[old.birth_block], table[:, 3]])
        return Storages(
            formula=np.append(self.formula, table[:, 0]).astype(np.int32),
            owner=np.append(old.owner, table[:, 1]).astype(np.int8),
            canonical=np.append(old.canonical, table[:, 2]).astype(np.int32),
            birth_block=np.searchsorted(keys, birth).astype(np.int32),
        )


def walks(recording: Recording, segment: Segment) -> list[dict[int, int]]:
    """Every way through a stack in a segment: the block of each of its layers, by base layer."""
    blocks, found = recording.blocks, []
    inside = np.unique(recording.events.block[recording.events.segment == segment])
    for middle in inside[blocks.layer[inside] == MIDDLE]:
        walk = {}
        for layer in range(BASE_UNITS):
            step = MIDDLE - layer if blocks.descending[middle] else layer - MIDDLE
            block = int(middle) + step
            if 0 <= block < len(blocks.layer) and (blocks.stack[block], blocks.layer[block]) == (
                blocks.stack[middle],
                layer,
            ):
                walk[layer] = block
        found.append(walk)
    return found
