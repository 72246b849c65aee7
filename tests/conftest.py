"""What all tests share: a steady environment, golden files, synthetic results."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.cuda import arena
from peftadvisor.profiles import (
    Cost,
    Estimate,
    Evidence,
    Flops,
    Memory,
    MemoryBreakdown,
    Parameters,
    Provenance,
    StepTime,
)
from peftadvisor.specs import GpuSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec
from peftadvisor.units import GIB, MIB

# Read by huggingface_hub when it is imported, so set before any test runs: no network in tests.
os.environ["HF_HUB_OFFLINE"] = "1"

GOLDEN = Path(__file__).parent / "golden" / "files"


def pytest_configure() -> None:
    """A compiled module hides its source: tests of an older one would say nothing."""
    compiled = Path(arena.__file__)
    source = compiled.with_name("arena.py")
    if compiled.stat().st_mtime < source.stat().st_mtime:
        raise pytest.UsageError(f"{source} is newer than {compiled.name}: pip install -e . again")


def pytest_collection_finish() -> None:
    """Collecting garbage looks at what tests make, not at the modules and tests there are."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite the golden files from the output"
    )


@pytest.fixture(autouse=True)
def steady_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the terminal or the user's settings reaches a test."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("FORCE_COLOR", "PEFTADVISOR_DEBUG", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: the text is that of the golden file, or becomes it."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {name}; make it with --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture
def gpu() -> GpuSpec:
    return GpuSpec(
        id="acme-40g",
        name="Acme Accelerator 40GB",
        vendor="acme",
        architecture="roadrunner",
        compute_capability=(8, 0),
        memory_bytes=40 * GIB,
        usable_bytes=39 * GIB,
        memory_bandwidth_bytes_per_s=1_555_000_000_000,
        peak_flops_per_s={"bf16": 3.12e14},
        achievable={"default": 0.8},
        multiprocessor_count=108,
        source="synthetic",
        confidence="high",
    )


@pytest.fixture
def model() -> ModelSpec:
    return ModelSpec(
        id="acme/seq2seq-11b",
        config={"model_type": "t5", "is_encoder_decoder": True},
        config_key="0123456789abcdef",
        parameters=11_000_000_000,
        checkpoint_parameters=11_000_000_000,
        provenance="synthetic",
    )


@pytest.fixture
def estimate(gpu: GpuSpec, model: ModelSpec) -> Estimate:
    """A made-up result with every part present; its numbers agree with each other."""
    breakdown = MemoryBreakdown(
        weights_bytes=21 * GIB,
        adapter_bytes=40 * MIB,
        gradient_bytes=40 * MIB,
        optimizer_bytes=80 * MIB,
        activation_bytes=7 * GIB,
        logits_bytes=1 * GIB,
        workspace_bytes=8_519_680,
        fragmentation_bytes=300 * MIB,
        context_bytes=500 * MIB,
    )
    allocated = breakdown.total_bytes - 800 * MIB
    return Estimate(
        run=RunSpec(
            model=model,
            method=MethodSpec(name="lora", settings=(("alpha", 32), ("rank", 16))),
            training=TrainingSpec(
                micro_batch_size=4,
                gradient_accumulation_steps=4,
                gradient_checkpointing="non-reentrant",
            ),
            gpu=gpu,
        ),
        parameters=Parameters(total=11_020_054_016, trainable=20_054_016, stored_bytes=80_216_064),
        memory=Memory(
            allocated_peak_bytes=allocated,
            reserved_peak_bytes=allocated + 300 * MIB,
            device_peak_bytes=breakdown.total_bytes,
            low_bytes=29 * GIB,
            high_bytes=32 * GIB,
            breakdown=breakdown,
            peak_phase="backward",
            peak_op="aten::_log_softmax_backward_data",
        ),
        flops=Flops(forward=2 * 10**14, backward=3 * 10**14, recompute=2 * 10**14, optimizer=10**8),
        time=StepTime(
            step_s=2.5,
            low_s=2.0,
            high_s=3.5,
            tokens_per_s=4096.0,
            samples_per_s=6.4,
            bound="compute",
        ),
        cost=Cost(
            usd_per_hour=1.29,
            usd_total=8.75,
            hours_total=6.78,
            price_source="acme-cloud, 2026-07",
        ),
        verdict="fits",
        oom_probability=0.003,
        evidence=Evidence(
            label="moderate",
            probability_at_least_lora=0.5,
            low=0.4,
            high=0.6,
            sources=("paper-a", "paper-b"),
        ),
        reasons=("weights take 54 % of the card", "activations are recomputed"),
        provenance=Provenance(
            engine="simulate",
            versions={"torch": "2.13.0", "transformers": "5.23.0"},
            recording="t5/lora",
            calibration="uncalibrated: published peak rates",
        ),
    )


@pytest.fixture
def oom_estimate(estimate: Estimate) -> Estimate:
    """The same run without checkpointing: more activations than the card holds."""
    extra = 16 * GIB
    memory = estimate.memory
    breakdown = replace(
        memory.breakdown, activation_bytes=memory.breakdown.activation_bytes + extra
    )
    return replace(
        estimate,
        run=replace(
            estimate.run,
            training=replace(estimate.run.training, gradient_checkpointing="none"),
        ),
        memory=replace(
            memory,
            allocated_peak_bytes=memory.allocated_peak_bytes + extra,
            reserved_peak_bytes=memory.reserved_peak_bytes + extra,
            device_peak_bytes=breakdown.total_bytes,
            low_bytes=memory.low_bytes + extra,
            high_bytes=memory.high_bytes + extra,
            breakdown=breakdown,
        ),
        verdict="oom",
        oom_probability=0.999,
        cost=Cost(),
        evidence=Evidence(),
    )


@pytest.fixture
def recommendation(estimate: Estimate, oom_estimate: Estimate) -> Any:
    """One choice that fits, one tight, one method too large, one impossible."""
    from peftadvisor.advisor.advised import Advised, Finding
    from peftadvisor.advisor.pilot import pilot_plan
    from peftadvisor.advisor.places import Place
    from peftadvisor.advisor.question import Choice, Pick, Question, Recommendation, Rejection
    from peftadvisor.specs import Budget, Job

    run = estimate.run
    over = oom_estimate.memory.device_peak_bytes - run.gpu.usable_bytes
    second = replace(
        estimate,
        run=replace(run, method=MethodSpec(name="ia3")),
        cost=Cost(),
        oom_probability=0.015,
    )
    first = Choice(
        estimate=estimate,
        score_reasons=("best evidence of the methods that fit", "fastest of them"),
        citations=("R1 (high)", "R2 (medium)"),
        advised=(
            Advised(
                name="learning_rate",
                value=2e-4,
                rule="begin at 2e-4 and try a third and three times of it",
                source="a cookbook",
                confidence="medium",
                low=1e-4,
                high=4e-4,
            ),
            Advised(
                name="lr_scheduler",
                value="cosine",
                rule="cosine in most recipes",
                source="recipes",
                confidence="low",
            ),
        ),
        findings=(
            Finding(
                rule="E37",
                kind="warns",
                statement="Alpha and the learning rate are one knob: change them together.",
                source="two studies",
                confidence="high",
            ),
        ),
        pareto=True,
    )
    return Recommendation(
        picks=(
            Pick(
                role="safest",
                choice=first,
                why="it is what other methods are compared with",
                not_next="ia3: 1.2 times as fast, -5% memory, 0.33 [0.07, 0.65]",
                limited_by="memory allows micro-batch 8; the step is bound by compute",
                changes=("samples of up to 768 tokens fit too, at micro-batch 8",),
            ),
        ),
        pilot=pilot_plan(2e-4, Job(examples=20_000), test_examples=500),
        question=Question(
            model=run.model,
            places=(Place(gpu=run.gpu),),
            training=TrainingSpec(),
            budget=Budget(total_tokens=10**8),
            effective_batch_size=16,
            methods=None,
        ),
        choices=(
            first,
            Choice(estimate=second, score_reasons=("smallest adapter",), citations=()),
        ),
        rejected=(
            Rejection(
                estimate=oom_estimate, method="full", reason="out of memory", over_by_bytes=over
            ),
            Rejection(
                estimate=None,
                method="bitfit",
                reason="the model has no biases to train",
                over_by_bytes=None,
            ),
        ),
        further=("ln-tuning", "prompt-tuning"),
        notes=("Times are uncalibrated.",),
    )
