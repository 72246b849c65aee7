"""The check before training, by real Trainers on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from peftadvisor.errors import PeftAdvisorError, UsageError  # noqa: E402
from peftadvisor.integrations import preflight as checking  # noqa: E402
from peftadvisor.integrations.preflight import (  # noqa: E402
    PreflightCallback,
    WouldNotFitError,
    preflight,
)
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from tests.live_runs import (  # noqa: E402
    LIMIT,
    PARAMETERS,
    TOLERANCE,
    arguments,
    exact,
    llama,
    lora,
    trained,
    with_peft,
)

pytestmark = pytest.mark.filterwarnings("ignore")


# A real Trainer.


def test_a_run_that_would_not_fit_is_stopped_before_its_first_step(tmp_path: Path) -> None:
    said: list[str] = []
    model, callback = llama(), PreflightCallback(limit_bytes=LIMIT, say=said.append)
    before = model.lm_head.weight.clone()
    with pytest.raises(WouldNotFitError, match="needs a predicted 291.46 MiB, there are") as stop:
        trained(model, tmp_path, callback, lengths=[512] * 16)
    report = stop.value.report
    assert (report.verdict, report.kind, report.measured) == ("oom", "predicted", None)
    assert report.needs_bytes > LIMIT
    assert "there are 190.73 MiB (limit_bytes)" in str(stop.value)
    assert "full on llama, 4 x 512 tokens (longest of all 16 samples)" in str(stop.value)
    assert torch.equal(model.lm_head.weight, before)
    assert said == []


def test_it_would_have_needed_what_was_predicted(tmp_path: Path) -> None:
    callback = exact(mode="warn")
    trained(llama(), tmp_path, callback, lengths=[512] * 16)
    assert callback.report is not None
    assert callback.report.verdict == "oom"
    assert callback.report.error == pytest.approx(0, abs=TOLERANCE)


RUNS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "full": (llama, {}),
    "lora": (lambda: lora(llama()), {}),
    "lora-targets": (
        lambda: lora(llama(), target_modules=["q_proj", "down_proj"], lora_dropout=0.1),
        {},
    ),
    "named": (
        lambda: peft.get_peft_model(
            llama(), peft.LoraConfig(task_type="CAUSAL_LM", r=4), adapter_name="mine"
        ),
        {},
    ),
    "dora": (lambda: lora(llama(), use_dora=True), {}),
    "padded": (llama, {"lengths": [64, 32, 16, 48] * 4}),
    "accumulated": (llama, {"gradient_accumulation_steps": 2, "optim": "sgd"}),
    "checkpointed": (lambda: lora(llama()), {"gradient_checkpointing": True}),
    "autocast": (lambda: lora(llama()), {"bf16": True}),
    "loop": (llama, {"optim": "adamw_torch"}),
    "adafactor": (llama, {"optim": "adafactor"}),
    "hra": (lambda: with_peft("HRAConfig", target_modules=["q_proj"]), {}),
    "ia3": (lambda: with_peft("IA3Config"), {}),
    "prefix": (lambda: with_peft("PrefixTuningConfig", num_virtual_tokens=8), {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_one_that_fits_goes_through_and_is_measured(name: str, tmp_path: Path) -> None:
    make, changes = RUNS[name]
    said: list[str] = []
    callback = exact(say=said.append)
    done = trained(make(), tmp_path, callback, **changes)
    assert done.state.global_step == 4
    report = callback.report
    assert report is not None
    assert report.measured is not None
    assert (report.verdict, report.kind, report.unknown) == ("fits", "predicted", ())
    assert report.measured.steps == 3
    print(f"{name}: {report.allocated_peak_bytes} / {report.measured.allocated_peak_bytes}")
    assert report.error == pytest.approx(0, abs=TOLERANCE)
    assert len(said) == 2
    assert "pre-flight: fits: a predicted" in said[0]
    assert said[1].startswith("pre-flight: predicted ")


class SubTrainer(transformers.Trainer):  # type: ignore[misc]
    """As TRL's trainers do: the loss of the model, with the outputs at hand."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def test_a_subclass_of_trainer_is_checked_too(tmp_path: Path) -> None:
    callback = exact()
    trained(lora(llama()), tmp_path, callback, trainer=SubTrainer)
    assert callback.report is not None
    assert callback.report.error == pytest.approx(0, abs=TOLERANCE)


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    def weights(callback: Any) -> Any:
        model = lora(llama(attention_dropout=0.1), lora_dropout=0.1)
        trained(model, tmp_path, callback, lengths=[64, 32, 16, 48] * 4)
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(weights(None), weights(PreflightCallback(limit_bytes=LIMIT)))


def test_without_a_record_nothing_is_claimed_on_the_cpu(tmp_path: Path) -> None:
    callback = PreflightCallback()
    trained(llama(), tmp_path, callback, max_steps=2)  # fewer than are wanted: read at the end
    report = callback.report
    assert report is not None
    assert report.measured is not None
    assert (report.measured.steps, report.measured.exact, report.error) == (2, False, None)
    assert report.verdict == "unknown"
    assert "held against nothing: on the CPU there is no limit" in report.text
    assert "record_allocations=True counts" in report.comparison


# Errors of the check itself.


def test_a_training_that_raises_leaves_no_profiler(tmp_path: Path) -> None:
    callback = exact()
    model = llama()
    with pytest.raises(IndexError):
        trained(model, tmp_path, callback, optimizer=lambda _: Failing(model.parameters()))
    assert torch.autograd._profiler_enabled()
    del callback
    gc.collect()
    assert not torch.autograd._profiler_enabled()


class Failing(torch.optim.SGD):  # type: ignore[misc]
    """Raises when it steps."""

    def step(self, closure: Any = None) -> Any:
        raise IndexError


def broken(*_: Any) -> Any:
    raise RuntimeError("a bug")


def test_an_error_of_its_own_does_not_kill_a_warned_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "forecast", broken)
    said: list[str] = []
    callback = PreflightCallback(mode="warn", say=said.append)
    assert trained(llama(), tmp_path, callback).state.global_step == 4
    assert said == [
        "pre-flight: the check failed (RuntimeError: a bug); training goes on unchecked"
    ]
    assert (callback.report, callback.failure) == (None, "RuntimeError: a bug")


def test_an_error_of_its_own_stops_where_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "forecast", broken)
    with pytest.raises(
        PeftAdvisorError, match=r"check failed \(RuntimeError: a bug\); mode='warn'"
    ):
        trained(llama(), tmp_path, PreflightCallback())


def test_a_failed_reading_never_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PreflightCallback, "measured", broken)
    callback = PreflightCallback(limit_bytes=LIMIT)
    assert trained(llama(), tmp_path, callback).state.global_step == 4
    assert callback.failure == "RuntimeError: a bug"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": "maybe"}, "mode is 'maybe'; it must be one of stop, warn"),
        ({"limit_bytes": 0}, "limit_bytes is 0; it must be a positive whole number"),
        ({"steps": 0}, "steps is 0; it must be a positive whole number"),
        ({"seq_len": -1}, "seq_len is -1; it must be a positive whole number"),
        ({"gpu": "a1000"}, "unknown GPU 'a1000'"),
    ],
)
def test_bad_settings_are_refused_at_once(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PreflightCallback(**wrong)


# Without a Trainer.


def test_without_a_trainer_it_is_the_same_run(tmp_path: Path) -> None:
    callback = exact()
    trained(lora(llama()), tmp_path, callback)
    model, config = llama(), peft.LoraConfig(task_type="CAUSAL_LM", r=4)
    found = preflight(model, arguments(tmp_path), config, seq_len=64, limit_bytes=LIMIT)
    assert callback.report is not None
    assert callback.report.run is not None
    assert found.run is not None
    assert found.run.method == callback.report.run.method
    # Rows whose lengths are not known differ: a mask of them is there.
    assert replace(found.run.training, padded=False) == callback.report.run.training
    assert not hasattr(model, "peft_config")
    assert all(type(module).__name__ != "Linear4bit" for module in model.modules())
    assert found.to_dict()["run"]["method"] == "lora"


def test_an_adapter_that_cannot_be_tried_on_is_refused(tmp_path: Path) -> None:
    config, args = peft.LoraConfig(task_type="CAUSAL_LM", r=4), arguments(tmp_path)
    with pytest.raises(UsageError, match="wrapped by PEFT already; leave out peft_config"):
        preflight(lora(llama()), args, config, seq_len=8)
    model = llama()
    with pytest.raises(UsageError, match="PEFT refuses the model: .*no_such"):
        preflight(model, args, peft.LoraConfig(target_modules=["no_such"]), seq_len=8)
    model.config.quantization_config = {"load_in_8bit": True}
    with pytest.raises(UsageError, match="wrap the quantized model by PEFT first"):
        preflight(model, args, config, seq_len=8)


def test_a_card_by_name_and_a_model_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with torch.device("meta"):
        model = llama()
    args = arguments(tmp_path)
    whole = preflight(model, args, gpu="t4", seq_len=64)
    assert (whole.verdict, whole.kind, whole.device) == ("fits", "predicted", "NVIDIA T4 16GB")
    assert whole.needs_bytes == sum(whole.parts.values())
    assert whole.parts["weights"] >= 4 * PARAMETERS
    small = preflight(model, args, gpu="t4", seq_len=64, limit_bytes=200 * 10**6)
    assert (small.verdict, small.limit.size) == ("oom", 200 * 10**6)


def test_targets_without_a_length_are_not_assumed(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(**MODELS["t5"])
    model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    args = arguments(tmp_path)
    missing = preflight(model, args, seq_len=32)
    assert missing.unknown == ("the length of targets is not known; pass target_len=",)
    said = preflight(model, args, seq_len=32, target_len=8)
    assert said.run is not None
    assert said.run.training.target_len == 8
