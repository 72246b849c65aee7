"""One run on shapes alone, as a profile: what the measured one is held against."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

import numpy as np

from peftadvisor.cuda.allocator import replay
from peftadvisor.cuda.outside import HANDLES, matmul_workspace_bytes, with_workspaces
from peftadvisor.cuda.readings import open_card
from peftadvisor.data.gpus import find_gpu
from peftadvisor.profilers.allocations import thinned
from peftadvisor.profilers.devices import index_of
from peftadvisor.profilers.provenance import provenance
from peftadvisor.profiles import Parameters, PhaseMemory, Profile
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import (
    Event,
    Owner,
    Phase,
    Segment,
    Trace,
    held_bytes,
    replay_events,
    total_counts,
)
from peftadvisor.specs import GpuSpec, MethodSpec, ModelSpec, TrainingSpec

BLOCK_BYTES = 512
"""What CUDA's caching allocator rounds every allocation up to."""

PHASES: dict[Phase, str] = {
    Phase.LOAD: "load",
    Phase.FORWARD: "forward",
    Phase.LOSS: "forward",
    Phase.BACKWARD: "backward",
    Phase.RECOMPUTE: "backward",
    Phase.OPTIMIZER: "optimizer",
}
OWNERS: dict[Owner, str] = {
    Owner.WEIGHT: "parameters",
    Owner.ADAPTER: "parameters",
    Owner.OPTIMIZER: "optimizer states",
}
THE_REST = "gradients, activations, temporaries"


def simulated_profile(
    model: ModelSpec, method: MethodSpec, training: TrainingSpec, gpu: GpuSpec | None = None
) -> Profile:
    """The run on tensors without numbers, with the kernels of a GPU, or of the CPU for None.

    Raises:
        UsageError: the model or the combination cannot be built.
    """
    trace = simulate(model, method, training, Device(gpu.compute_capability if gpu else None))
    total, trained, trained_bytes = total_counts(trace.parameters_by_tag)
    accumulate = training.gradient_accumulation_steps > 1
    held = held_bytes(trace, accumulate=accumulate, block_bytes=BLOCK_BYTES if gpu else 1)
    return Profile(
        engine="simulate",
        device=gpu.name if gpu else "cpu",
        model=model.id,
        method=method,
        training=training,
        parameters=Parameters(total=total, trainable=trained, stored_bytes=trained_bytes),
        memory=_memory(trace, held, accumulate, gpu),
        phase_flops=_flops(trace, training.gradient_accumulation_steps),
        time=None,
        provenance=provenance(
            "simulate", f"made on {platform.machine()}, {datetime.now(UTC).date().isoformat()}"
        ),
        timeline=thinned(np.arange(len(held)), held, "events"),
    )


def gpu_of(device: str) -> GpuSpec | None:
    """The GPU that a device is: none for ``cpu``, the live one for ``cuda:N``, else by name.

    Raises:
        UsageError: no such GPU here or in the catalog.
    """
    if device == "cpu":
        return None
    if device.partition(":")[0] != "cuda":
        return find_gpu(device)
    remedy = "measure on the cpu, or simulate a GPU by name: --engine simulate --device a100-40g"
    with open_card(index_of(device), f"--device {device}", remedy) as card:
        return find_gpu(card.name)


def _memory(trace: Trace, held: np.ndarray, accumulate: bool, gpu: GpuSpec | None) -> PhaseMemory:
    """Peaks by phase; on a GPU with its matmul workspaces, which are there after the load."""
    counts = accumulate | (np.asarray(trace.event_segment) != Segment.ACCUMULATE)
    phase = np.asarray(trace.event_phase)
    workspace = HANDLES * matmul_workspace_bytes(gpu) if gpu else 0
    peaks: dict[str, int] = {}
    for number, name in PHASES.items():
        inside = counts & (phase == number)
        if inside.any():
            extra = 0 if name == "load" else workspace
            peaks[name] = max(peaks.get(name, 0), int(held[inside].max()) + extra)
    return PhaseMemory(
        static_bytes=int(held[phase == Phase.LOAD][-1]),
        allocated_peak_bytes=max(peaks.values()),
        peak_phase=max(peaks, key=lambda name: peaks[name]),
        phase_peak_bytes=peaks,
        reserved_peak_bytes=_reserved_bytes(trace, accumulate, gpu) if gpu else None,
        owner_bytes=_owners(trace, accumulate, int(np.argmax(held)), max(peaks.values())),
    )


def _reserved_bytes(trace: Trace, accumulate: bool, gpu: GpuSpec) -> int:
    events, sizes = (np.asarray(x) for x in replay_events(trace, accumulate=accumulate))
    return replay(*with_workspaces(events, sizes, matmul_workspace_bytes(gpu))).reserved_peak_bytes


def _owners(trace: Trace, accumulate: bool, last: int, peak_bytes: int) -> dict[str, int]:
    """Whose the bytes held after event ``last`` are."""
    parts = {"parameters": 0, "optimizer states": 0}
    rows = zip(trace.event_kind, trace.event_ref, trace.event_segment, strict=True)
    for number, (kind, ref, segment) in enumerate(rows):
        if number > last:
            break
        counts = accumulate or segment != Segment.ACCUMULATE
        owner = OWNERS.get(Owner(trace.storage_owner[ref])) if kind != Event.KERNEL else None
        if owner and counts:
            size = trace.storage_bytes[ref]
            parts[owner] += size if kind == Event.ALLOC else -size
    return {**parts, THE_REST: peak_bytes - sum(parts.values())}


def _flops(trace: Trace, micro_batches: int) -> dict[str, int]:
    counted = dict.fromkeys(("forward", "backward", "optimizer"), 0)
    rows = zip(
        trace.event_kind, trace.event_ref, trace.event_segment, trace.event_phase, strict=True
    )
    for kind, ref, segment, phase in rows:
        if kind == Event.KERNEL and segment in (Segment.STEP_1, Segment.UPDATE_1):
            times = micro_batches if segment == Segment.STEP_1 else 1
            counted[PHASES[Phase(phase)]] += times * trace.kernel_flops[ref]
    return counted
