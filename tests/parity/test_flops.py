"""Simulated FLOPs against torch's counter on the real step, and twice fvcore's MACs forward."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import Event, Phase, Segment, Trace
from peftadvisor.specs import MethodSpec, TrainingSpec
from tests.parity.tiny import CONFIGS, RealRun, spec


def flops(trace: Trace, phases: tuple[Phase, ...]) -> int:
    return sum(
        trace.kernel_flops[ref]
        for kind, ref, segment, phase in zip(
            trace.event_kind,
            trace.event_ref,
            trace.event_segment,
            trace.event_phase,
            strict=True,
        )
        if kind == Event.KERNEL and segment == Segment.STEP_1 and phase in phases
    )


@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant"])
@pytest.mark.parametrize("method", ["full", "lora", "lora-all"])
@pytest.mark.parametrize("model", CONFIGS)
def test_flops_equal_torchs_counter(model: str, method: str, checkpointing: str) -> None:
    training = TrainingSpec(
        micro_batch_size=2,
        seq_len=48,
        target_len=24,
        dtype="fp32",
        gradient_checkpointing=checkpointing,  # type: ignore[arg-type]
    )
    run = RealRun(CONFIGS[model], method, training)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with FlopCounterMode(display=False) as counter:
            run.forward_backward()
    trace = simulate(spec(CONFIGS[model]), MethodSpec(name=method), training, Device(None))
    phases = (Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE)
    assert flops(trace, phases) == counter.get_total_flops()
    recomputed = flops(trace, (Phase.RECOMPUTE,))
    assert bool(recomputed) == (checkpointing != "none")


def fvcore_macs(run: RealRun) -> tuple[int, set[str]]:
    """MACs of the matrix products of a forward pass, and the operators that fvcore left out."""
    from fvcore.nn import FlopCountAnalysis

    ids = torch.zeros(2, 48, dtype=torch.long)
    labels = torch.zeros(2, 24 if run.is_t5 else 48, dtype=torch.long)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = run.model

        def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, labels=labels).logits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(Logits(), (ids, labels))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
        uncounted = {name.removeprefix("aten::") for name in analysis.unsupported_ops()}
    return sum(by_operator[name] for name in ("linear", "matmul", "addmm", "bmm")), uncounted


@pytest.mark.parametrize("model", CONFIGS)
def test_forward_flops_are_twice_fvcores_macs(model: str) -> None:
    """With eager attention every matrix product is one that fvcore counts; sdpa it does not."""
    training = TrainingSpec(
        micro_batch_size=2, seq_len=48, target_len=24, dtype="fp32", attention="eager"
    )
    macs, uncounted = fvcore_macs(RealRun(CONFIGS[model], "full", training))
    trace = simulate(spec(CONFIGS[model]), MethodSpec(name="full"), training, Device(None))
    print(f"{model}: fvcore counts no {', '.join(sorted(uncounted))}")
    assert flops(trace, (Phase.FORWARD,)) == 2 * macs
    sdpa = RealRun(CONFIGS[model], "full", replace(training, attention="sdpa"))
    assert "scaled_dot_product_attention" in fvcore_macs(sdpa)[1]
