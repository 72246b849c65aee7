"""One run as a profile, by either engine: simulated on shapes, or measured on a device."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from peftadvisor.errors import UnsupportedError
from peftadvisor.profilers import instruments
from peftadvisor.profilers.workload import Workload
from peftadvisor.profiles import Parameters, PhaseMemory, PhaseTime, Profile, Provenance
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import (
    Event,
    Phase,
    Segment,
    Trace,
    held_bytes,
    total_counts,
)
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

Say = Callable[[str], None]
PHASES: dict[Phase, str] = {
    Phase.LOAD: "load",
    Phase.FORWARD: "forward",
    Phase.LOSS: "forward",
    Phase.BACKWARD: "backward",
    Phase.RECOMPUTE: "backward",
    Phase.OPTIMIZER: "optimizer",
}


def simulated_profile(
    model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: str
) -> Profile:
    """The run on tensors without numbers, with the kernels of the device.

    Raises:
        UsageError: the model or the combination cannot be built.
    """
    trace = simulate(model, method, training, Device(_capability(device)))
    total, trained, trained_bytes = total_counts(trace.parameters_by_tag)
    return Profile(
        engine="simulate",
        device=device,
        model=model.id,
        method=method,
        training=training,
        parameters=Parameters(total=total, trainable=trained, stored_bytes=trained_bytes),
        memory=_traced_memory(trace, training.gradient_accumulation_steps > 1),
        phase_flops=_traced_flops(trace, training.gradient_accumulation_steps),
        time=None,
        provenance=_provenance("simulate"),
    )


def measured_profile(
    model: ModelSpec,
    method: MethodSpec,
    training: TrainingSpec,
    device: str,
    *,
    steps: int = 5,
    say: Say = lambda _: None,
) -> Profile:
    """The run with random weights and one random batch, here and now.

    Times are taken alone, then FLOPs counted, then allocations recorded on a new model, whose
    optimizer states are yet to be made.

    Raises:
        UsageError: the model or the combination cannot be built, or not on this device.
    """
    _capability(device)
    say("building the model")
    workload = Workload(model, method, training, device)
    parameters = _parameters(workload)
    say("timing steps")
    took = instruments.seconds(workload, steps)
    say("counting FLOPs")
    counted = instruments.flops(workload)
    del workload
    say("recording allocations")
    held = instruments.allocations(Workload(model, method, training, device))
    return Profile(
        engine="measure",
        device=device,
        model=model.id,
        method=method,
        training=training,
        parameters=parameters,
        memory=PhaseMemory(
            static_bytes=held.static_bytes,
            allocated_peak_bytes=held.peak_bytes,
            peak_phase=held.peak_phase,
            phase_peak_bytes=held.phase_bytes,
            host_peak_bytes=_host_peak_bytes(),
        ),
        phase_flops=counted,
        time=_time(took, training),
        provenance=_provenance("measure"),
    )


def _capability(device: str) -> tuple[int, int] | None:
    if device != "cpu":
        raise UnsupportedError(
            f"runs are profiled on the CPU only so far, not on '{device}'; leave --device out"
        )
    return None


def _parameters(workload: Workload) -> Parameters:
    trained = workload.trained
    return Parameters(
        total=sum(p.numel() for p in workload.model.parameters()),
        trainable=sum(p.numel() for p in trained),
        stored_bytes=sum(p.numel() * p.element_size() for p in trained),
    )


def _time(took: instruments.Seconds, training: TrainingSpec) -> PhaseTime:
    samples = training.micro_batch_size * training.gradient_accumulation_steps
    low, high = took.quartiles_s
    return PhaseTime(
        step_s=took.median_s,
        low_s=low,
        high_s=high,
        phase_s=took.phases,
        tokens_per_s=samples * training.seq_len / took.median_s,
        samples_per_s=samples / took.median_s,
        steps=len(took.steps),
    )


def _host_peak_bytes() -> int:
    """The largest resident set of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _traced_memory(trace: Trace, accumulate: bool) -> PhaseMemory:
    """The same of a trace, every allocation at its own size, as the CPU makes them."""
    counts = accumulate | (np.asarray(trace.event_segment) != Segment.ACCUMULATE)
    held, phase = held_bytes(trace, accumulate=accumulate), np.asarray(trace.event_phase)
    peaks: dict[str, int] = {}
    for number, name in PHASES.items():
        inside = counts & (phase == number)
        if inside.any():
            peaks[name] = max(peaks.get(name, 0), int(held[inside].max()))
    return PhaseMemory(
        static_bytes=peaks["load"],
        allocated_peak_bytes=int(held.max()),
        peak_phase=max(peaks, key=lambda name: peaks[name]),
        phase_peak_bytes=peaks,
    )


def _traced_flops(trace: Trace, micro_batches: int) -> dict[str, int]:
    counted = dict.fromkeys(("forward", "backward", "optimizer"), 0)
    rows = zip(
        trace.event_kind, trace.event_ref, trace.event_segment, trace.event_phase, strict=True
    )
    for kind, ref, segment, phase in rows:
        if kind == Event.KERNEL and segment in (Segment.STEP_1, Segment.UPDATE_1):
            times = micro_batches if segment == Segment.STEP_1 else 1
            counted[PHASES[Phase(phase)]] += times * trace.kernel_flops[ref]
    return counted


def _provenance(engine: str) -> Provenance:
    names = ("torch", "transformers", "peft")
    return Provenance(
        engine=engine,
        versions={name: version(name) for name in names} | {"python": platform.python_version()},
        recording=f"made on {platform.machine()}, {datetime.now(UTC).date().isoformat()}",
        calibration="none",
    )
