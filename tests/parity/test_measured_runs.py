"""A run measured on the CPU against the same run simulated: allocations, FLOPs, and its times."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from peftadvisor.errors import UnsupportedError
from peftadvisor.profilers.allocations import recorded_allocations
from peftadvisor.profilers.conformance import MODELS, TRAINING
from peftadvisor.profilers.devices import CpuBench
from peftadvisor.profilers.instruments import flops, seconds
from peftadvisor.profilers.workload import Workload
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import Event, Phase, Segment, Trace, held_bytes
from peftadvisor.specs import MethodSpec, TrainingSpec
from tests.parity.tiny import spec

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "checkpointed": {"gradient_checkpointing": "non-reentrant"},
    "adafactor": {"optimizer": "adafactor"},
    "eager": {"attention": "eager"},
    "not clipped": {"max_grad_norm": 0.0},
}


def simulated(model: str, method: str, training: TrainingSpec) -> Trace:
    return simulate(spec(MODELS[model]), MethodSpec(name=method), training, Device(None))


def measured(model: str, method: str, training: TrainingSpec) -> Workload:
    torch.set_num_threads(1)
    return Workload(spec(MODELS[model]), MethodSpec(name=method), training)


def flops_of(trace: Trace, *phases: Phase) -> int:
    first = (Segment.STEP_1, Segment.UPDATE_1)
    events = zip(
        trace.event_kind, trace.event_ref, trace.event_segment, trace.event_phase, strict=True
    )
    return sum(
        trace.kernel_flops[ref]
        for kind, ref, segment, phase in events
        if kind == Event.KERNEL and segment in first and phase in phases
    )


def beside(training: TrainingSpec) -> int:
    """Each checkpoint keeps the state of the CPU's random numbers, which no GPU holds."""
    layers = 4
    return 0 if training.gradient_checkpointing == "none" else layers * 5120


@pytest.mark.parametrize("changes", CHANGES.values(), ids=list(CHANGES))
@pytest.mark.parametrize("method", ["full", "lora", "houlsby"])
@pytest.mark.parametrize("model", MODELS)
def test_simulated_equals_measured(model: str, method: str, changes: dict[str, Any]) -> None:
    training = replace(TRAINING, **changes)
    trace = simulated(model, method, training)
    held = recorded_allocations(measured(model, method, training), 2)
    accumulated = training.gradient_accumulation_steps > 1
    peak = held_bytes(trace, accumulate=accumulated).max()
    assert abs(peak - held.peak_bytes) <= 0.001 * held.peak_bytes + beside(training)
    assert held.timeline is not None
    assert max(held.timeline.held_bytes) == held.peak_bytes
    counted = flops(measured(model, method, training))
    micro = training.gradient_accumulation_steps
    assert micro * flops_of(trace, Phase.FORWARD) == counted["forward"]
    assert micro * flops_of(trace, Phase.BACKWARD, Phase.RECOMPUTE) == counted["backward"]


def test_every_phase_is_timed() -> None:
    took = seconds(measured("llama", "lora", TRAINING), CpuBench(), steps=3)
    assert len(took.steps) == 3
    assert set(took.phases) == {"forward", "backward", "optimizer"}


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UnsupportedError, match="pip install bitsandbytes"):
        measured("llama", "lora", replace(TRAINING, optimizer="adamw-8bit"))
    for kind in ("nf4", "nf4-dq", "int8"):
        training = replace(TRAINING, quantization=kind)
        with pytest.raises(UnsupportedError, match="pip install bitsandbytes") as said:
            measured("llama", "qlora", training)
        assert "\n" not in str(said.value)


def test_a_method_refuses_a_quantized_base_as_it_does_simulated() -> None:
    training = replace(TRAINING, quantization="nf4")
    said = []
    for run in (simulated, measured):
        with pytest.raises(UnsupportedError) as error:
            run("llama", "pissa", training)
        said.append(str(error.value))
    assert said[0] == said[1]
