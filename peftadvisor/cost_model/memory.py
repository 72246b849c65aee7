"""Device memory of one run: allocator replay of the recording, plus what lies outside it.

device = reserved + CUDA context and NCCL's buffers, where reserved is a replay of every
allocation through the caching allocator's rules, on the card that there is: where its memory runs
out, the allocator gives back what it has cached before it fails. fragmentation = reserved -
allocated. Leaves out peaks while weights are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from peftadvisor.cost_model.uncertainty import bundled_scores, interval_factors, kind_of
from peftadvisor.cuda.allocator import replay
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
from peftadvisor.simulator.recording import Integers
from peftadvisor.simulator.trace import Owner
from peftadvisor.specs import GpuSpec, Loss

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


def predict_memory(
    run: Simulated, gpu: GpuSpec, loss: Loss = "torch", gpus: int = 1
) -> PredictedMemory:
    """Allocated, reserved and device peaks with their parts, and the risk of running out.

    ``run`` is what one of the ``gpus`` does (``sharding``).
    """
    peak = run.peak()
    parts = dict.fromkeys(_PARTS.values(), 0)
    for owner, held in peak.by_owner.items():
        parts[_PARTS[owner]] += held
    parts["workspace_bytes"] += HANDLES * matmul_workspace_bytes(gpu)
    allocated = sum(parts.values())
    context = context_bytes(gpu).typical + nccl_bytes(gpus).typical
    reserved = _reserved(run, gpu, allocated, gpu.usable_bytes - context)
    breakdown = MemoryBreakdown(
        **parts, fragmentation_bytes=reserved.peak - allocated, context_bytes=context
    )
    kind = kind_of(loss, gpus)
    low, high = interval_factors(kind)
    memory = Memory(
        allocated_peak_bytes=allocated,
        reserved_peak_bytes=reserved.peak,
        device_peak_bytes=breakdown.total_bytes,
        low_bytes=int(low * breakdown.total_bytes),
        high_bytes=int(high * breakdown.total_bytes),
        breakdown=breakdown,
        peak_phase=peak.phase.name.lower(),
        peak_op=peak.operator.partition(".")[0],
    )
    risk = oom_probability(reserved.needed + context, gpu, kind)
    return PredictedMemory(memory=memory, oom_probability=risk)


@dataclass(frozen=True, slots=True)
class _Reserved:
    """Peak of what the allocator reserves, and the least with which it gets by."""

    peak: int
    needed: int


def _reserved(run: Simulated, gpu: GpuSpec, allocated: int, room: int) -> _Reserved:
    """Replay without a bound, then within the card's room, then for the least that is enough."""
    events = with_workspaces(*run.expand(), matmul_workspace_bytes(gpu))
    free = max(allocated, replay(*events).reserved_peak_bytes)
    if free <= room or allocated > room:
        return _Reserved(free, free)
    bounded = replay(*events, capacity_bytes=room)
    fits = bounded.oom_event is None
    least, most = (allocated, room) if fits else (room, free)
    for _ in range(HALVINGS):
        middle = (least + most) // 2
        enough = replay(*events, capacity_bytes=middle).oom_event is None
        least, most = (least, middle) if enough else (middle, most)
    return _Reserved(max(allocated, bounded.reserved_peak_bytes) if fits else free, most)


def least_device_bytes(allocated_bytes: Integers, gpu: GpuSpec, gpus: int = 1) -> Integers:
    """Quick lower bounds of the device peak: allocated peaks and context, no fragmentation."""
    outside = context_bytes(gpu).typical + nccl_bytes(gpus).typical
    return allocated_bytes + (HANDLES * matmul_workspace_bytes(gpu) + outside)


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
