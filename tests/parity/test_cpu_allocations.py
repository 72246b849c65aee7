"""Simulated peaks against the CPU profiler's record of every allocation of the same real run."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import clip_gradients, simulate
from peftadvisor.simulator.trace import held_bytes
from peftadvisor.specs import MethodSpec, TrainingSpec
from tests.parity.tiny import CONFIGS, METHODS, RealRun, spec

TOLERANCE = 0.001  # of the peak; the record holds a few hundred bytes of CPU scalars beside


def measured_peak_bytes(run: RealRun) -> int:
    static = run.static_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run.step(clip_gradients)
            run.step(clip_gradients)
        events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return static + int(np.cumsum([nbytes for _, nbytes in changes]).max())


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", CONFIGS)
def test_peak_equals_the_cpu_allocation_record(model: str, method: str, checkpointing: str) -> None:
    torch.set_num_threads(1)
    training = TrainingSpec(
        micro_batch_size=4,
        seq_len=64,
        target_len=32,
        dtype="fp32",
        gradient_checkpointing=checkpointing,  # type: ignore[arg-type]
    )
    config = CONFIGS[model]
    measured = measured_peak_bytes(RealRun(config, method, training))
    trace = simulate(spec(config), MethodSpec(name=method), training, Device(None))
    simulated = held_bytes(trace).max()
    print(f"{model} {method} {checkpointing}: {simulated} / {measured}")
    assert simulated == pytest.approx(measured, rel=TOLERANCE)
