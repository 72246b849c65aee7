"""The check before training: by real Trainers on the CPU, and by cards that are not there."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import peftadvisor  # noqa: E402
from peftadvisor.cuda.devices import free_bytes  # noqa: E402
from peftadvisor.errors import PeftAdvisorError, UsageError  # noqa: E402
from peftadvisor.integrations import forecast as forecasting  # noqa: E402
from peftadvisor.integrations import preflight as checking  # noqa: E402
from peftadvisor.integrations.forecast import Where, forecast  # noqa: E402
from peftadvisor.integrations.preflight import (  # noqa: E402
    PreflightCallback,
    WouldNotFitError,
    preflight,
)
from peftadvisor.profilers.checking import Measured  # noqa: E402
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from peftadvisor.profilers.counted import counted  # noqa: E402
from peftadvisor.profilers.live import Parts  # noqa: E402
from peftadvisor.profilers.live_settings import settings_of  # noqa: E402
from peftadvisor.profilers.room import Room, room_of  # noqa: E402
from peftadvisor.profilers.seen import Lengths, largest  # noqa: E402
from peftadvisor.units import GIB, MIB  # noqa: E402
from tests.parity.tiny import LLAMA  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
LIMIT = 200 * 10**6
TOLERANCE = 0.002
"""Of the measured peak; scalars of a few bytes are not simulated."""
# 4 layers of 65,536 (q) + 2 · 32,768 (k, v) + 65,536 (o) + 3 · 176,128 (MLP) + 2 · 256 (norms),
# embeddings and head of 819,200 each, and the last norm: 4,540,672 parameters.
PARAMETERS = 4_540_672


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**{**LLAMA, **changes})
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def lora(model: Any, **fields: Any) -> Any:
    return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, **fields))


class Texts(torch.utils.data.Dataset):  # type: ignore[misc]
    """Texts of given lengths, all of one token."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        ids = [5] * self.lengths[number]
        return {"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}


def collate(samples: list[dict[str, list[int]]]) -> dict[str, Any]:
    longest = max(len(sample["input_ids"]) for sample in samples)
    return {
        name: torch.tensor([s[name] + [0] * (longest - len(s[name])) for s in samples])
        for name in samples[0]
    }


def arguments(folder: Path, **changes: Any) -> Any:
    usual = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(**{**usual, **changes})


def trained(model: Any, folder: Path, callback: Any, **changes: Any) -> Any:
    """Train four steps of the texts of ``lengths`` by the class ``trainer`` and ``optimizer``."""
    lengths = changes.pop("lengths", [64] * 16)
    kind = changes.pop("trainer", transformers.Trainer)
    optimizer = changes.pop("optimizer", lambda _: None)(model.parameters())
    made = kind(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=Texts(lengths),
        data_collator=collate,
        callbacks=[callback] if callback else [],
        optimizers=(optimizer, None),
    )
    made.train()
    return made


def exact(**options: Any) -> PreflightCallback:
    return PreflightCallback(limit_bytes=LIMIT, record_allocations=True, **options)


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


def with_peft(kind: str, **fields: Any) -> Any:
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **fields)
    return peft.get_peft_model(llama(), config)


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


# What is none of ours.


class Odd(torch.nn.Linear):  # type: ignore[misc]
    """A layer of the user's own."""


def with_odd_head() -> Any:
    model = llama()
    model.lm_head = Odd(256, 3200, bias=False)
    return model


def with_frozen_embeddings() -> Any:
    model = llama()
    model.model.embed_tokens.requires_grad_(False)
    return model


def with_another_forward() -> Any:
    model = llama()
    forward = model.forward
    model.forward = lambda *a, **k: forward(*a, **k)
    return model


UNKNOWN = {
    "PEFT's OFT is read off no live model": (
        lambda: with_peft("OFTConfig", target_modules=["q_proj"]),
        {},
    ),
    "'rank_dropout' is 0.1; what is simulated has 0.0": (
        lambda: with_peft("LoHaConfig", target_modules=["q_proj"], rank_dropout=0.1),
        {},
    ),
    "'base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight' is 2x256 float32": (
        lambda: lora(llama(), rank_pattern={"q_proj": 2}),
        {},
    ),
    "'lm_head' is Odd; what is simulated has Linear": (with_odd_head, {}),
    "frozen (model.embed_tokens.weight, …) by no method of PEFT": (with_frozen_embeddings, {}),
    "the forward of the model is replaced, by tests.unit.test_preflight": (
        with_another_forward,
        {"remove_unused_columns": False},
    ),
    "'base_model.model.lm_head' is ModulesToSaveWrapper": (
        lambda: lora(llama(), modules_to_save=["lm_head"]),
        {},
    ),
    "AdamW with amsgrad keeps one more state": (
        llama,
        {"optimizer": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True)},
    ),
    "SGD with momentum keeps a state": (
        llama,
        {"optimizer": lambda parameters: torch.optim.SGD(parameters, momentum=0.9)},
    ),
    "label_smoothing_factor is set": (llama, {"label_smoothing_factor": 0.1}),
}


@pytest.mark.parametrize("reason", UNKNOWN)
def test_what_is_unknown_is_a_lower_bound_and_says_so(reason: str, tmp_path: Path) -> None:
    make, changes = UNKNOWN[reason]
    callback = exact()
    done = trained(make(), tmp_path, callback, **changes)
    assert done.state.global_step == 4
    report = callback.report
    assert report is not None
    assert report.measured is not None
    assert (report.kind, report.verdict, report.run) == ("lower bound", "unknown", None)
    assert "(lower bound)" in report.text
    assert any(reason in why for why in report.unknown), report.unknown
    assert reason in report.text
    assert report.needs_bytes <= report.measured.allocated_peak_bytes
    assert report.error is None
    assert "the lower bound was" in report.comparison


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    args = arguments(tmp_path, optim="lion_32bit", label_smoothing_factor=0.1)
    reasons = preflight(with_odd_head(), args).unknown
    assert [reason.split(" ")[0] for reason in reasons] == [
        "label_smoothing_factor",
        "no",  # length of samples was said
        "gradients:",
        "optimizer",
    ]


def test_a_lower_bound_above_the_limit_stops(tmp_path: Path) -> None:
    callback = PreflightCallback(limit_bytes=40 * 10**6)
    with pytest.raises(WouldNotFitError, match=r"needs at least 69.29 MiB \(lower bound\)"):
        trained(with_odd_head(), tmp_path, callback)
    # Weights, gradients, two states in fp32, and the rotary frequencies twice, 32 of fp32 each.
    assert callback.report is not None
    assert callback.report.needs_bytes == PARAMETERS * 4 * 4 + 2 * 32 * 4


@pytest.mark.parametrize(
    ("make", "states"),
    [
        (lambda p: torch.optim.AdamW(p), 2),
        (lambda p: torch.optim.AdamW(p, amsgrad=True, fused=True), 3),
        (lambda p: torch.optim.SGD(p, momentum=0.9), 1),
        (lambda p: torch.optim.SGD(p), 0),
    ],
)
def test_states_are_counted_by_the_optimizer_itself(make: Any, states: int) -> None:
    model = with_odd_head()
    optimizer = make(model.parameters())
    found = counted(model, SimpleNamespace(), optimizer)
    assert found.optimizer_bytes == states * 4 * PARAMETERS
    assert (found.gradient_bytes, found.left_out) == (4 * PARAMETERS, ())
    assert not optimizer.state


def test_what_a_divided_run_holds_is_not_guessed() -> None:
    model = llama()
    optimizer = torch.optim.SGD(model.parameters())
    found = counted(model, SimpleNamespace(fsdp="full_shard"), optimizer)
    assert (found.gradient_bytes, found.optimizer_bytes) == (0, 0)
    assert found.left_out == ("gradients", "optimizer states")


def test_a_model_on_two_devices_is_counted_on_the_first(tmp_path: Path) -> None:
    model = llama()
    model.lm_head.to("meta")
    found = preflight(model, arguments(tmp_path), seq_len=8)
    assert found.kind == "lower bound"
    assert "the model lies on several devices" in found.unknown
    # The head is 3,200 x 256; weights, gradients and two states, and the frequencies.
    assert found.needs_bytes == (PARAMETERS - 3200 * 256) * 4 * 4 + 2 * 32 * 4


class Plain(torch.nn.Module):  # type: ignore[misc]
    """No model of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(64, 1)

    def forward(self, input_ids: Any, labels: Any) -> dict[str, Any]:
        return {"loss": self.head(input_ids.float()).mean()}


def test_a_model_of_the_users_own_is_counted(tmp_path: Path) -> None:
    callback = exact()
    trained(Plain(), tmp_path, callback)
    assert callback.report is not None
    assert callback.report.unknown == ("Plain has no config of transformers",)
    assert callback.report.needs_bytes == 65 * 4 * 4


def of_trl(name: str, folder: Path) -> Any:
    """Arguments as TRL's: the class is told by its module and name."""
    kind = type(name, (transformers.TrainingArguments,), {"__module__": "trl.trainer"})
    args = arguments(folder)
    args.__class__ = kind
    return args


def test_what_trl_adds_makes_a_lower_bound_of_the_prediction(tmp_path: Path) -> None:
    callback = exact()
    made = transformers.Trainer(
        model=lora(llama()),
        args=of_trl("SFTConfig", tmp_path),
        train_dataset=Texts([64] * 16),
        data_collator=collate,
        callbacks=[callback],
    )
    made.train()
    report = callback.report
    assert report is not None
    assert report.measured is not None
    assert (report.kind, report.verdict) == ("lower bound", "unknown")
    assert report.unknown == ("TRL's SFTTrainer works out entropy and accuracy from the logits",)
    # Nothing was added here, so that the bound is the peak.
    assert report.needs_bytes == pytest.approx(report.measured.allocated_peak_bytes, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["SFTConfig", "DPOConfig"])
def test_a_step_of_trl_that_nobody_has_seen_is_not_predicted(name: str, tmp_path: Path) -> None:
    found = preflight(llama(), of_trl(name, tmp_path), seq_len=64)
    assert found.unknown == (f"{name}: what a step of TRL's trainer does is not known here",)
    assert found.run is None


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        (
            {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
            },
            "nf4-dq",
        ),
        ({"load_in_8bit": True}, "int8"),
    ],
)
def test_quantization_is_read_off(config: dict[str, Any], known: str, tmp_path: Path) -> None:
    model, args = llama(), arguments(tmp_path)
    model.config.quantization_config = config
    seen = largest(args, None, Lengths(seq_len=8))
    assert settings_of(model, args, None, seen, on_card=False).quantization == known
    model.config.quantization_config = {**config, "load_in_8bit": False, "bnb_4bit_quant_type": ""}
    with pytest.raises(UsageError, match="otherwise than by nf4 or int8"):
        settings_of(model, args, None, seen, on_card=False)


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


# Data.


def loader(data: Any) -> Any:
    return torch.utils.data.DataLoader(data, batch_size=4, collate_fn=collate)


def test_the_longest_sample_is_found_and_no_batch_is_taken(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    found = largest(args, loader(Texts([16, 48, 32, 16, 16])), Lengths())
    assert (found.rows, found.seq_len, found.target_len, found.padded) == (4, 48, 48, True)
    assert (found.how, found.surely) == ("longest of all 5 samples", True)
    few = largest(args, loader(Texts([16, 16])), Lengths())
    assert (few.rows, few.padded) == (2, False)


def test_max_length_stands_for_samples_that_were_not_seen(tmp_path: Path) -> None:
    many = loader(Texts([8] * 1000))
    found = largest(arguments(tmp_path), many, Lengths())
    assert (found.seq_len, found.how) == (8, "longest of 256 of 1000 samples")
    args = SimpleNamespace(max_length=32, train_batch_size=4)
    assert largest(args, many, Lengths()).how == "max_length of the arguments"
    assert largest(args, many, Lengths()).seq_len == 32


def test_data_that_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    broken_data = torch.utils.data.DataLoader(Texts([4]), collate_fn=lambda _: 1 / 0)
    with pytest.raises(UsageError, match=r"\(ZeroDivisionError: .*\); pass seq_len="):
        largest(arguments(tmp_path), broken_data, Lengths())


def test_a_stream_is_not_read(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            raise AssertionError

    streamed = torch.utils.data.DataLoader(Stream(), batch_size=4)
    with pytest.raises(UsageError, match="the data is a stream"):
        largest(arguments(tmp_path), streamed, Lengths())


# A GPU that is not there.


def on_card(tmp_path: Path) -> Parts:
    args = arguments(tmp_path)
    return Parts(
        model=llama(),
        args=args,
        optimizer=None,
        seen=lambda: largest(args, None, Lengths(seq_len=64)),
        device="cuda",
    )


def room(name: str, free: int) -> Room:
    return Room(gpu=name, free_bytes=free, source="NVML", reserved_bytes=MIB, others_bytes=0)


def test_what_is_free_on_the_live_card_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    verdicts = {}
    for free in (10 * GIB, 50 * MIB):
        monkeypatch.setattr(forecasting, "live_room", lambda *_, f=free: room("Tesla T4", f))
        found = forecast(on_card(tmp_path), Where(), lambda _: None)
        verdicts[free] = found.verdict
        # The context of 430 MiB is there: it counts as usable, and as needed.
        assert found.limit.size == free + MIB + 430 * MIB
        assert found.limit.source == "free on Tesla T4 now by NVML, and held by this process"
    assert verdicts == {10 * GIB: "fits", 50 * MIB: "oom"}


def test_a_card_that_nobody_knows_has_a_limit_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "live_room", lambda *_: room("Secret X1", 20 * MIB))
    found = forecast(on_card(tmp_path), Where(), lambda _: None)
    assert (found.kind, found.verdict, found.limit.size) == ("lower bound", "oom", 21 * MIB)
    assert "unknown GPU 'Secret X1'" in found.unknown[0]
    assert found.unknown[0].endswith("name a like card: gpu=, with limit_bytes=")


class Cuda:
    """What of torch.cuda is asked: 300 MiB reserved, 120 in tensors."""

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(uuid="abc")

    def get_device_name(self, index: int) -> str:
        return "Tesla T4"

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 700 * MIB, 1000 * MIB

    def memory_reserved(self, index: int) -> int:
        return 300 * MIB

    def memory_allocated(self, index: int) -> int:
        return 120 * MIB


def test_the_room_is_what_is_free_and_held_less_what_others_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def of_driver(uuid: str) -> int:
        asked.append(uuid)
        return 800 * MIB

    monkeypatch.setattr("peftadvisor.profilers.room.free_bytes", of_driver)
    found = room_of(0, 100 * MIB, Cuda())
    assert (found.source, asked) == ("NVML", ["abc"])
    assert found.usable_bytes == (800 + 300 - 20) * MIB

    def no_driver(_: str) -> int:
        raise UsageError("no driver")

    monkeypatch.setattr("peftadvisor.profilers.room.free_bytes", no_driver)
    second = room_of(0, 100 * MIB, Cuda())
    assert (second.source, second.free_bytes) == ("torch.cuda.mem_get_info", 700 * MIB)


class Nvml:
    """What of pynvml is asked: one card with 5 GiB free, cut by MIG or not."""

    NVMLError = RuntimeError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, mig: int) -> None:
        self.mig, self.open = mig, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-abc":
            raise RuntimeError("Not Found")
        return uuid

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return self.mig, self.mig

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(free=5 * GIB)


def test_the_driver_tells_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(mig=0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    assert free_bytes("abc") == free_bytes("GPU-abc") == 5 * GIB
    with pytest.raises(UsageError, match="the driver says 'Not Found'; say how much there is"):
        free_bytes("other")
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(mig=1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="split by MIG"):
        free_bytes("abc")
    assert nvml.open == 0


def test_a_prediction_is_compared_with_its_own_device_only(tmp_path: Path) -> None:
    found = preflight(llama(), arguments(tmp_path), seq_len=16)
    assert found.allocated_peak_bytes is not None
    half = Measured(
        allocated_peak_bytes=2 * found.allocated_peak_bytes,
        reserved_peak_bytes=None,
        steps=3,
        how="by hand",
    )
    assert found.with_measured(half).error == -0.5
    assert found.with_measured(half).comparison.endswith("in 3 steps (by hand): -50.0%")
    of_card = replace(half, reserved_peak_bytes=1)
    assert found.with_measured(of_card).error is None


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "preflight_in_code.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exec(compile(example, "preflight_in_code.md", "exec"), {})
    said = capsys.readouterr().out
    assert "pre-flight: does not fit: needs a predicted" in said
    assert "pre-flight: fits: a predicted" in said
    assert re.search(r"pre-flight: predicted .* \(by the record of every allocation\): -0.0%", said)


def test_it_is_offered_by_name() -> None:
    assert peftadvisor.PreflightCallback is PreflightCallback
    assert peftadvisor.preflight is preflight
