"""Data parallel runs on G GPUs of one node: what one of them holds, as a recording of its own.

Of n bytes one GPU holds, n/G being rounded up:

                    ddp    zero-1   zero-2   zero-3, fsdp
    weights          n       n        n          n/G
    gradients        2n      2n       n/G        n/G
    optimizer, and
    what updates     n       n/G      n/G        n/G

2n: the buckets that are exchanged are copies (``gradient_as_bucket_view`` off). Besides, where
weights are divided: those outside the layers, whole, for as long as a micro-batch runs, and a
layer's while it runs; two layers' in backward where all is trained (the next is fetched ahead;
adapters are units of their own, so that the next layer is fetched when this one is nearly done).
Where gradients are divided: whole ones until the layer's backward ends, or all of backward for
those outside. Constants of quantized weights are buffers, which are not divided. FSDP with
reentrant checkpointing holds the input of each frozen layer and its gradient until backward ends:
the hook that frees the layer's weights refers to them.

Runs that are simulated at full depth: see ``unlayered``.

Source: torch/distributed/fsdp/_runtime_utils.py, torch/nn/parallel/distributed.py (torch 2.13).
Leaves out padding, DeepSpeed's bucket sizes, its fp32 copies of trained weights, and offloading.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from peftadvisor.cost_model.loaded import loaded
from peftadvisor.cost_model.unlayered import gather_at_once, hold_inputs_at_once, layers_of
from peftadvisor.errors import UnsupportedError
from peftadvisor.simulator.editing import Draft, Place, walks
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import MIDDLE, Integers
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment
from peftadvisor.specs import RunSpec, Sharding

WHOLE: frozenset[Sharding] = frozenset({"zero-3", "fsdp"})
"""Weights are divided."""
REDUCED: frozenset[Sharding] = frozenset({"zero-2", *WHOLE})
"""Gradients are divided."""
_MICRO_BATCHES = (Segment.STEP_1, Segment.STEP_2, Segment.ACCUMULATE)


def shard(simulated: Simulated, run: RunSpec) -> Simulated:
    """What one of the run's GPUs does; the same where there is one.

    Raises:
        UnsupportedError: weights are divided, and the recording has no layers.
    """
    if run.gpus == 1:
        return simulated
    layers = None if simulated.units else layers_of(run.model)
    if run.sharding in WHOLE and not simulated.units and layers is None:
        raise UnsupportedError("weights are gathered layer by layer, and this run has no layers")
    draft = Draft(simulated.recording)
    _share_optimizer(draft, run)
    if run.sharding in WHOLE:
        _gather(draft, run, _frozen(simulated), layers)
    if run.sharding in REDUCED:
        _reduce(draft, run.gpus, at_once=layers is not None)
    else:
        _add_buckets(draft)
    if _holds_inputs(run) and _frozen(simulated):
        _hold_inputs(draft, layers)
    return dataclasses.replace(simulated, recording=draft.finished())


def _holds_inputs(run: RunSpec) -> bool:
    return run.sharding == "fsdp" and run.training.gradient_checkpointing == "reentrant"


def _frozen(simulated: Simulated) -> bool:
    counts = simulated.parameters()
    return counts.trainable < counts.total


@dataclasses.dataclass(frozen=True, slots=True)
class Exchanged:
    """Bytes that data parallel runs send around: all weights that are divided, all gradients."""

    weights_bytes: int
    gradient_bytes: int


def exchanged(simulated: Simulated) -> Exchanged:
    """Bytes of weights and of gradients at full depth."""
    recording, units = simulated.recording, simulated.units
    values = recording.values(simulated.point, units)[recording.storages.formula]
    total = values * recording.times(units)[recording.storages.birth_block]
    weights, gradients = _weights(recording), _gradients(recording)
    return Exchanged(int(total[weights].sum()), int(total[gradients].sum()))


def _births(recording: Recording) -> Integers:
    """The event that allocates each storage."""
    allocations = np.flatnonzero(recording.events.kind == Event.ALLOC)
    born = np.zeros(len(recording.storages.formula), dtype=np.int64)
    born[recording.events.ref[allocations]] = allocations
    return born


def _deaths(recording: Recording) -> Integers:
    """The event that frees each storage; the number of events where none does."""
    events = recording.events
    frees = np.flatnonzero(events.kind == Event.FREE)
    died = np.full(len(recording.storages.formula), len(events.kind), dtype=np.int64)
    died[events.ref[frees]] = frees
    return died


def _weights(recording: Recording) -> Integers:
    """Storages of parameters: what is loaded, but the constants of quantized weights."""
    held = loaded(recording)
    return held.rows[~held.constant]


def _gradients(recording: Recording) -> Integers:
    """Storages of the gradients that the first step leaves to its update."""
    events = recording.events
    first = np.flatnonzero(events.segment == Segment.STEP_1)
    owned = np.flatnonzero(recording.storages.owner == Owner.GRADIENT)
    born, died = _births(recording)[owned], _deaths(recording)[owned]
    return np.asarray(owned[(events.segment[born] == Segment.STEP_1) & (died > first[-1])])


def _share_optimizer(draft: Draft, run: RunSpec) -> None:
    """Divide what is allocated in the update."""
    if run.sharding == "ddp":
        return
    recording = draft.recording
    rows = np.flatnonzero(recording.events.phase[_births(recording)] == Phase.OPTIMIZER)
    _share(draft, rows[recording.storages.owner[rows] != Owner.GRADIENT], run.gpus)


def _share(draft: Draft, rows: Integers, gpus: int) -> None:
    """Divide storages."""
    shares = {int(f): draft.share(int(f), gpus) for f in np.unique(draft.formula[rows])}
    draft.formula[rows] = [shares[int(f)] for f in draft.formula[rows]]


def _by_layer(recording: Recording, rows: Integers) -> Mapping[tuple[int, int], Integers]:
    """Formulas of storages by the stack and base layer they were born in; (-1, -1) outside."""
    blocks, storages = recording.blocks, recording.storages
    block = storages.birth_block[rows]
    stack = np.where(blocks.layer[block] < 0, -1, blocks.stack[block])
    places = np.column_stack([stack, blocks.layer[block]])
    return {
        (int(s), int(n)): storages.formula[rows[(places == (s, n)).all(axis=1)]].astype(np.int64)
        for s, n in np.unique(places, axis=0)
    }


def _gather(draft: Draft, run: RunSpec, frozen: bool, layers: int | None) -> None:
    """Divide the weights; make the whole ones while they are needed."""
    recording = draft.recording
    rows = _weights(recording)
    by_layer = _by_layer(recording, rows)
    for segment in _MICRO_BATCHES:
        if layers is not None:
            gather_at_once(draft, rows, layers, segment)
        elif (-1, -1) in by_layer:
            outside = draft.total(by_layer[-1, -1])
            root = draft.allocate(draft.before(segment), outside, Owner.WEIGHT)
            draft.free(draft.after(segment), root)
        for walk in walks(recording, segment):
            forward = draft.start_of(walk[MIDDLE]).phase == Phase.FORWARD
            at_once = 1 if forward or frozen else 2
            like: int | None = None
            for layer in sorted(walk, key=lambda layer: layer != MIDDLE):
                block = walk[layer]
                whole = by_layer.get((int(recording.blocks.stack[block]), layer))
                if whole is None:
                    continue
                made = draft.total(whole, at_once)
                row = draft.allocate(draft.start_of(block), made, Owner.WEIGHT, _like(layer, like))
                draft.free(draft.end_of(block), row)
                like = row if layer == MIDDLE else like
    _share(draft, rows, run.gpus)


def _like(layer: int, middle: int | None) -> int | None:
    """The storage of the middle layer that stands for this one's; none for the outermost."""
    return middle if abs(layer - MIDDLE) == 1 else None


def _reduce(draft: Draft, gpus: int, *, at_once: bool) -> None:
    """Put a share in the place of each gradient when its layer, or all of backward, is done.

    ``at_once``: as soon as it is made.
    """
    recording = draft.recording
    events, storages = recording.events, recording.storages
    born, died = _births(recording), _deaths(recording)
    rows = np.flatnonzero(storages.owner == Owner.GRADIENT)
    share_of: dict[int, int] = {}
    for row in sorted(map(int, rows), key=lambda row: int(storages.canonical[row]) != row):
        block, segment = int(storages.birth_block[row]), Segment(int(events.segment[born[row]]))
        if segment not in _MICRO_BATCHES:
            continue
        layered = recording.blocks.layer[block] >= 0
        at = draft.end_of(block) if layered else draft.after(segment)
        at = draft.behind(int(born[row])) if at_once else at
        if died[row] < at.position:
            continue
        formula = draft.share(int(storages.formula[row]), gpus)
        like = share_of.get(int(storages.canonical[row]))
        share_of[row] = draft.allocate(at, formula, Owner.GRADIENT, like)
        draft.free(at, row)
        if died[row] < len(events.kind):
            draft.ref[died[row]] = share_of[row]


def _add_buckets(draft: Draft) -> None:
    """Copies of all gradients, made before the first step and never freed."""
    recording = draft.recording
    by_layer = _by_layer(recording, _gradients(recording))
    middles: dict[int, int] = {}
    for stack, layer in sorted(by_layer, key=lambda place: place[1] != MIDDLE):
        at = draft.after(Segment.LOAD, stack, layer)
        row = draft.allocate(
            at,
            draft.total(by_layer[stack, layer]),
            Owner.GRADIENT,
            _like(layer, middles.get(stack)) if layer >= 0 else None,
        )
        if layer == MIDDLE:
            middles[stack] = row


def _hold_inputs(draft: Draft, layers: int | None) -> None:
    """Hold what each layer keeps from forward, and as much of gradients, until backward ends."""
    recording = draft.recording
    born, died = _births(recording), _deaths(recording)
    for segment in _MICRO_BATCHES:
        if layers is not None:
            hold_inputs_at_once(draft, born, died, layers, segment)
        kept: dict[int, Integers] = {}
        for walk in walks(recording, segment):
            middle = walk[MIDDLE]
            stack = int(recording.blocks.stack[middle])
            if draft.start_of(middle).phase == Phase.FORWARD:
                kept.setdefault(stack, _left_by(draft, middle))
            elif len(kept.get(stack, ())):
                _hold(draft, walk, draft.total(kept[stack], 2), stack)


def _hold(draft: Draft, walk: Mapping[int, int], formula: int, stack: int) -> None:
    like: int | None = None
    for layer in sorted(walk, key=lambda layer: layer != MIDDLE):
        at: Place = draft.end_of(walk[layer])
        row = draft.allocate(at, formula, Owner.ACTIVATION, _like(layer, like))
        draft.free(draft.after(at.segment, stack, layer), row)
        like = row if layer == MIDDLE else like


def _left_by(draft: Draft, block: int) -> Integers:
    """Formulas of what a block allocates and does not free."""
    storages = draft.recording.storages
    born = np.flatnonzero(storages.birth_block == block)
    left = born[_deaths(draft.recording)[born] >= draft.ends[block]]
    return np.asarray(storages.formula[left], dtype=np.int64)
