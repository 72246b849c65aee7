"""Simulated inference against the CPU profiler's record of the same passes on real tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method
from peftadvisor.profilers.conformance import MODELS, ModelRun
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.inference import generate, trace_inference
from peftadvisor.simulator.step import prepare
from peftadvisor.simulator.trace import Event, Segment, held_bytes
from peftadvisor.specs import MethodSpec, TrainingSpec

NEW_TOKENS = 4
TRAINING = TrainingSpec(micro_batch_size=4, seq_len=64, target_len=32, dtype="fp32")


@pytest.mark.parametrize("method", ["full", "lora", "houlsby"])
@pytest.mark.parametrize("model", ["t5", "llama"])
def test_peak_equals_the_cpu_allocation_record(model: str, method: str) -> None:
    torch.set_num_threads(1)
    run = ModelRun(find_method(method), model)
    attached, batch = run.attached(), run.batch()
    base = getattr(attached.model, "base_model", attached.model)
    inner = getattr(base, "model", base) if method == "lora" else attached.model
    attached.model.eval()
    tensors = [*attached.model.parameters(), *attached.model.buffers()]
    static = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
        torch.no_grad(),
    ):
        held = {name: tensor.clone() for name, tensor in batch.items()}
        out = attached.model(**held, use_cache=True)
        out = attached.model(**held, use_cache=True)  # while the first is held
        del out
        generate(attached.model, inner, held, NEW_TOKENS)
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    measured = sum(static.values()) + int(np.cumsum([n for _, n in changes]).max())
    prepared = prepare(run.spec(), MethodSpec(name=method), TRAINING)
    trace = trace_inference(prepared, TRAINING, Device(None), NEW_TOKENS)
    assert held_bytes(trace, accumulate=True).max() == pytest.approx(measured, rel=0.001)


def test_the_cache_grows_by_a_token_at_a_time() -> None:
    model = find_model("meta-llama/Llama-3.2-1B")
    short = replace(model, config={**model.config, "num_hidden_layers": 2})
    training = TrainingSpec(micro_batch_size=3, seq_len=100)

    def kernels(tokens: int) -> int:
        prepared = prepare(short, MethodSpec(name="full"), training)
        trace = trace_inference(prepared, training, Device((8, 0)), tokens)
        in_generation = np.asarray(trace.event_segment) == Segment.STEP_2
        return int(((np.asarray(trace.event_kind) == Event.KERNEL) & in_generation).sum())

    assert kernels(4) - kernels(3) == kernels(3) - kernels(2) > 0


def test_models_that_do_not_generate_run_forward_only() -> None:
    training = TrainingSpec(micro_batch_size=2, seq_len=64)
    prepared = prepare(
        find_model("google-bert/bert-base-uncased"), MethodSpec(name="full"), training
    )
    trace = trace_inference(prepared, training, Device((8, 0)), 5)
    assert Segment.STEP_2 not in trace.event_segment
    assert set(MODELS) == {"t5", "llama", "bert"}
