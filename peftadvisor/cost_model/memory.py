"""Device memory of one run: allocator replay of the recording, plus what lies outside it.

device = reserved + CUDA context and NCCL's buffers, where reserved is a replay of every
allocation through the caching allocator's rules, on the card that there is: where its memory runs
out, the allocator gives back what it has cached before it fails. fragmentation = reserved -
allocated. Training is one such list of allocations, loading the weights (``loading``) another: the
run needs the larger of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from peftadvisor.cost_model.loading import Loading
from peftadvisor.cost_model.uncertainty import bundled_scores, interval_factors, kind_of
from peftadvisor.cuda.allocator import ReplayResult, replay
from peftadvisor.cuda.outside import (
    HANDLES,
    context_bytes,
    matmul_workspace_bytes,
    nccl_bytes,
    with_workspaces,
)
from peftadvisor.data.memory_errors import Kind
from peftadvisor.profiles import Memory, MemoryBreakdown
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.trace import Owner
from peftadvisor.specs import GpuSpec, RunSpec

HALVINGS = 3
"""Replays that look for the least memory in which a run that fills the card still runs."""

_PARTS: Mapping[Owner, str] = {
    Owner.WEIGHT: "weights_bytes",
    Owner.ADAPTER: "adapter_bytes",
    Owner.GRADIENT: "gradient_bytes",
    Owner.OPTIMIZER: "optimizer_bytes",
    Owner.ACTIVATION: "activation_bytes",
    Owner.TEMPORARY: "activation_bytes",
    Owner.INPUT: "activation_bytes",
    Owner.LOGITS: "logits_bytes",
    Owner.WORKSPACE: "workspace_bytes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedMemory:
    """Peaks with their interval, and the probability that the card is too small."""

    memory: Memory
    oom_probability: float


@dataclass(frozen=True, slots=True)
class _Demand:
    """What is asked of the allocator, in order, and the parts, phase and operator of the peak."""

    events: Integers
    sizes: Integers
    parts: Mapping[str, int]
    phase: str
    operator: str

    @property
    def allocated(self) -> int:
        """Bytes allocated at the peak."""
        return sum(self.parts.values())


def predict_memory(simulated: Simulated, run: RunSpec) -> PredictedMemory:
    """Allocated, reserved and device peaks of training with their parts, and the risk of them.

    ``simulated`` is what one of the run's GPUs does (``sharding``).
    """
    peak = simulated.peak()
    workspace = matmul_workspace_bytes(run.gpu)
    parts = dict.fromkeys(_PARTS.values(), 0)
    for owner, held in peak.by_owner.items():
        parts[_PARTS[owner]] += held
    parts["workspace_bytes"] += HANDLES * workspace
    events, sizes = with_workspaces(*simulated.expand(), workspace)
    operator = peak.operator.partition(".")[0]
    return _predicted(_Demand(events, sizes, parts, peak.phase.name.lower(), operator), run)


def predict_loading(loading: Loading, run: RunSpec) -> PredictedMemory:
    """The same of loading the weights: all that is held then is weights, in one form or another."""
    parts = {"weights_bytes": loading.allocated_peak_bytes}
    return _predicted(_Demand(loading.events, loading.sizes, parts, "load", loading.during), run)


def _predicted(demand: _Demand, run: RunSpec) -> PredictedMemory:
    context = context_bytes(run.gpu).typical + nccl_bytes(run.gpus).typical
    reserved = _reserved(demand, run.gpu.usable_bytes - context, run.expandable_segments)
    breakdown = MemoryBreakdown(
        **demand.parts,
        fragmentation_bytes=reserved.peak - demand.allocated,
        context_bytes=context,
    )
    kind = kind_of(run.training.loss, run.gpus)
    low, high = interval_factors(kind)
    memory = Memory(
        allocated_peak_bytes=demand.allocated,
        reserved_peak_bytes=reserved.peak,
        device_peak_bytes=breakdown.total_bytes,
        low_bytes=int(low * breakdown.total_bytes),
        high_bytes=int(high * breakdown.total_bytes),
        breakdown=breakdown,
        peak_phase=demand.phase,
        peak_op=demand.operator,
    )
    risk = oom_probability(reserved.needed + context, run.gpu, kind)
    return PredictedMemory(memory=memory, oom_probability=risk)


@dataclass(frozen=True, slots=True)
class _Reserved:
    """Peak of what the allocator reserves, and the least with which it gets by."""

    peak: int
    needed: int


def _reserved(demand: _Demand, room: int, expandable: bool) -> _Reserved:
    """Replay without a bound, then within the card's room, then for the least that is enough."""

    def replayed(capacity: int | None = None) -> ReplayResult:
        return replay(
            demand.events, demand.sizes, capacity_bytes=capacity, expandable_segments=expandable
        )

    allocated = demand.allocated
    free = max(allocated, replayed().reserved_peak_bytes)
    if free <= room or allocated > room:
        return _Reserved(free, free)
    bounded = replayed(room)
    fits = bounded.oom_event is None
    least, most = (allocated, room) if fits else (room, free)
    for _ in range(HALVINGS):
        middle = (least + most) // 2
        enough = replayed(middle).oom_event is None
        least, most = (least, middle) if enough else (middle, most)
    return _Reserved(max(allocated, bounded.reserved_peak_bytes) if fits else free, most)


def least_device_bytes(
    allocated_bytes: Integers, loading_bytes: int, gpu: GpuSpec, gpus: int = 1
) -> Integers:
    """Quick lower bounds of the device peak: allocated peaks and context, no fragmentation."""
    training = allocated_bytes + HANDLES * matmul_workspace_bytes(gpu)
    outside = context_bytes(gpu).typical + nccl_bytes(gpus).typical
    return np.asarray(np.maximum(training, loading_bytes) + outside)


def most_device_bytes(gpu: GpuSpec, kind: Kind, accepted_risk: float) -> int:
    """The largest predicted device peak whose risk of running out is accepted."""
    return int(gpu.usable_bytes / math.exp(_score_exceeded(kind, accepted_risk)))


@cache
def _score_exceeded(kind: Kind, risk: float) -> float:
    return bundled_scores(kind).quantile(1 - risk)


def oom_probability(device_bytes: int, gpu: GpuSpec, kind: Kind = "plain") -> float:
    """Chance that a run which is predicted to need so much needs more than the card has.

    P(score > log(usable / predicted)), by the scores of published runs (``uncertainty``).
    """
    return bundled_scores(kind).above(math.log(gpu.usable_bytes / device_bytes))
