"""The exported script takes the memory that was simulated: every allocation of its training."""

from __future__ import annotations

import contextlib
import gc
import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import tests.export_cases as cases
from peftadvisor.integrations.exports import FORMATS, Export
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import held_bytes
from peftadvisor.specs import Job, RunSpec

TOLERANCE = 0.002  # the data loader holds the next micro-batch, and the Trainer a few numbers
CONFIG: Mapping[str, Any] = {
    **cases.TINY["llama"],
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "vocab_size": 3200,
}
"""Large enough for the batches to be small beside it."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def static_bytes(model: Any) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def measured_peak_bytes(source: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The most that tensors hold while the script's Trainer trains."""
    code: dict[str, Any] = {"__name__": "script"}
    exec(compile(source, "train.py", "exec"), code)
    peaks = []

    class Watched(code["Trainer"]):  # type: ignore[misc]
        def train(self) -> None:
            gc.collect()
            gc.disable()
            static = static_bytes(self.model)
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
                super().train()
            gc.enable()
            events = profiler.profiler.kineto_results.events()
            changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
            peaks.append(static + int(np.cumsum([nbytes for _, nbytes in changes]).max()))

        def save_model(self, *_: Any, **__: Any) -> None:
            """Nothing."""

        _save_checkpoint = save_model

    code["Trainer"] = Watched
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with quiet():
        code["main"]()
    return peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("lora", {}),
        ("lora", {"gradient_checkpointing": "non-reentrant", "dtype": "bf16"}),
        ("lora", {"padded": True, "gradient_accumulation_steps": 1}),
        ("full", {}),
        ("full", {"gradient_checkpointing": "reentrant", "optimizer": "sgd"}),
        ("ia3", {}),
        ("dora", {}),
        ("prompt-tuning", {}),
        ("ln-tuning", {}),
    ],
)
def test_peaks_of_scripts_are_simulated(
    method: str, training: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(cases, "TINY", {"llama": CONFIG})
    with quiet():
        folder = cases.save_model("llama", tmp_path / "model")
    data = cases.save_data("llama", tmp_path / "data.jsonl", lines=200)
    usual: dict[str, Any] = {
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "seq_len": 64,
        "dtype": "fp32",
        "optimizer": "adamw-loop",  # as torch has it on the CPU
        "loop": "trainer",
    }
    model = cases.tiny_model("llama")
    run: RunSpec = cases.run_of(method, model=model, **{**usual, **training})
    made = date(2026, 11, 28)
    estimate = cases.estimate_of(run)
    source = FORMATS["peft"].write(Export(estimate=estimate, advised=(), job=Job(), made=made))
    names = {"--model": folder, "--data": data, "--output": tmp_path / "out", "--max-steps": 3}
    arguments = [str(part) for pair in names.items() for part in pair]
    measured = measured_peak_bytes(source, monkeypatch, *arguments)
    trace = simulate(run.model, run.method, run.training, Device(None))
    accumulates = run.training.gradient_accumulation_steps > 1
    simulated = held_bytes(trace, accumulate=accumulates).max()
    print(f"{method} {training}: {simulated} / {measured}")
    assert simulated == pytest.approx(measured, rel=TOLERANCE)
