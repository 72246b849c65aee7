"""What grows with depth outside the layers, learned from one deeper run; and the final check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.expansion import expand, play
from peftadvisor.simulator.parts import BASE_UNITS, MIDDLE, Formulas
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recorder import InexactError
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Trace, total_counts


def deepen(
    recording: Recording, trace: Trace, point: Point, units: Sequence[int], stack: int
) -> Recording:
    """Learn from one deeper run what grows with depth outside the layers (lists over all weights).

    The run must be ``recording``'s at ``point`` with more units in ``stack`` only. Everything
    else is held against it: the same events, in the same order, of the same sizes.

    Raises:
        InexactError: the deeper run is not the base run with its middle layer repeated.
    """
    order, _ = play(recording, units)
    events = recording.events
    kind = np.asarray(trace.event_kind)
    if len(order) != len(kind) or (events.kind[order] != kind).any():
        raise InexactError(f"expanded to {len(order)} events, the direct run has {len(kind)}")
    values = recording.values(point, [BASE_UNITS] * len(units))
    grown = _Growth(recording, stack, units[stack] - BASE_UNITS, order)
    storages, kernels = recording.storages, recording.kernels
    touched = np.asarray([sum(parts) for parts in trace.kernel_touched])
    ref = np.asarray(trace.event_ref)
    births, runs = kind == Event.ALLOC, kind == Event.KERNEL
    return replace(
        recording,
        storages=replace(
            storages,
            formula=grown.adjust(
                storages.formula, births, np.asarray(trace.storage_bytes)[ref[births]], values
            ),
        ),
        kernels=replace(
            kernels, touched=grown.adjust(kernels.touched, runs, touched[ref[runs]], values)
        ),
        formulas=grown.formulas(),
        facts={**recording.facts, "counts": _counts(recording, trace, units, stack)},
    )


def _counts(
    recording: Recording, trace: Trace, units: Sequence[int], stack: int
) -> dict[str, list[Any]]:
    """Parameter counts with what a unit of this stack adds, in its layers or outside of them."""
    base, layer = recording.facts["counts"]["base"], list(recording.facts["counts"]["layer"])
    deeper, extra = total_counts(trace.parameters_by_tag), units[stack] - BASE_UNITS
    layer[stack] = [(now - was) // extra for now, was in zip(deeper, base, strict=True)]
    return {"base": base, "layer": layer}


class _Growth:
    """Formulas extended by what grows with the number of units of one stack."""

    def __init__(self, recording: Recording, stack: int, extra: int, order: NDArray[Any]) -> None:
        self.recording, self.stack, self.extra, self.order = recording, stack, extra, order
        self.coefficients = list(recording.formulas.coefficients)
        self.depth = list(recording.formulas.depth)
        self.known: dict[tuple[int, int], int] = {}

    def adjust(
        self,
        formula: NDArray[np.int32],
        events: NDArray[np.bool_],
        seen: NDArray[Any],
        values: NDArray[np.int64],
    ) -> NDArray[np.int32]:
        """Formula numbers with a slope where the deeper run shows one."""
        adjusted = formula.copy()
        places = self.order[events]
        rows = self.recording.events.ref[places]
        for place, row, growth in zip(places, rows, seen - values[formula[rows]], strict=True):
            if not growth:
                continue
            block = self.recording.events.block[place]
            if self.recording.blocks.layer[block] == MIDDLE or growth % self.extra:
                raise InexactError(f"event {place} has another size in a deeper model")
            adjusted[row] = self._with_slope(int(formula[row]), int(growth // self.extra))
        return adjusted

    def _with_slope(self, formula: int, slope: int) -> int:
        if (formula, slope) not in self.known:
            self.known[formula, slope] = len(self.coefficients)
            self.coefficients.append(self.coefficients[formula])
            depth = self.depth[formula].copy()
            depth[self.stack] += slope
            self.depth.append(depth)
        return self.known[formula, slope]

    def formulas(self) -> Formulas:
        """The old formulas and the new ones."""
        return Formulas(
            self.recording.formulas.terms, np.stack(self.coefficients), np.stack(self.depth)
        )


def verify(recording: Recording, trace: Trace, point: Point, units: Sequence[int]) -> None:
    """Hold a recording against a direct run: the same allocations and frees in the same order.

    Raises:
        InexactError: they differ.
    """
    events, sizes = expand(recording, point, units, accumulate=True)
    kind = np.asarray(trace.event_kind)
    moves = kind != Event.KERNEL
    ref = np.asarray(trace.event_ref)[moves]
    direct = np.where(kind[moves] == Event.ALLOC, ref + 1, -(ref + 1))
    if len(direct) != len(events):
        raise InexactError(f"expanded to {len(events)} events, the direct run has {len(direct)}")
    ours = _by_appearance(events, sizes)
    theirs = _by_appearance(direct, np.asarray(trace.storage_bytes))
    different = np.flatnonzero((ours != theirs).any(axis=0))
    if len(different):
        raise InexactError(f"event {different[0]} of {len(direct)} differs from the direct run")


def _by_appearance(events: NDArray[Any], sizes: NDArray[Any]) -> NDArray[Any]:
    """Signed sizes and the storage's order of appearance, event by event."""
    storage = np.abs(events) - 1
    _, first, inverse = np.unique(storage, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return np.stack([np.sign(events) * sizes[storage], rank[inverse]])
