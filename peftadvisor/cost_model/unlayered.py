"""Sharding of runs that are simulated at full depth, whose events name no layers.

Layers are alike, so of c storages of one size each of L layers has ⌊c/L⌋, and the rest is outside
of them. What is gathered, one layer and all that is outside, is held for the whole micro-batch;
gradients are reduced as they are made. Leaves out prefetching, and layers that are not alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from peftadvisor.simulator.editing import Draft
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.trace import Owner, Phase, Segment
from peftadvisor.specs import ModelSpec


def layers_of(model: ModelSpec) -> int | None:
    """Layers of a model with one stack, by its config."""
    layers: Any = model.config.get("num_hidden_layers")
    single = isinstance(layers, int) and not model.config.get("is_encoder_decoder")
    return layers if single and layers else None


def gather_at_once(draft: Draft, rows: Integers, layers: int, segment: Segment) -> None:
    """Make one layer's weights and those outside of layers, for a micro-batch."""
    sizes, counts = _counted(draft, rows)
    times = counts // layers + counts % layers
    made = draft.total(np.repeat(sizes, times))
    row = draft.allocate(draft.before(segment), made, Owner.WEIGHT)
    draft.free(draft.after(segment), row)


def hold_inputs_at_once(
    draft: Draft, born: Integers, died: Integers, layers: int, segment: Segment
) -> None:
    """Behind each input that backward frees, hold as much again twice, until backward ends."""
    events = draft.recording.events
    kept = np.flatnonzero(died < len(events.kind))
    kept = kept[(events.segment[born[kept]] == segment) & (events.segment[died[kept]] == segment)]
    kept = kept[events.phase[born[kept]] == Phase.FORWARD]
    kept = kept[np.isin(events.phase[died[kept]], (Phase.BACKWARD, Phase.RECOMPUTE))]
    sizes, counts = _counted(draft, kept)
    alike = sizes[counts >= layers]
    formulas = draft.recording.storages.formula
    twice = {int(f): draft.total(np.asarray([f]), 2) for f in alike}
    for row in kept[np.isin(formulas[kept], alike)]:
        at = draft.behind(int(died[row]))
        held = draft.allocate(at, twice[int(formulas[row])], Owner.ACTIVATION)
        draft.free(draft.after(segment), held)


def _counted(draft: Draft, rows: Integers) -> tuple[Integers, Integers]:
    """Formulas of storages, and how many storages have each."""
    sizes, counts = np.unique(draft.recording.storages.formula[rows], return_counts=True)
    return sizes.astype(np.int64), counts.astype(np.int64)
