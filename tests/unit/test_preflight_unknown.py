"""What the check before training cannot know: it says so, and gives a lower bound."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.integrations.preflight import (  # noqa: E402
    PreflightCallback,
    WouldNotFitError,
    preflight,
)
from peftadvisor.profilers.counted import counted  # noqa: E402
from peftadvisor.profilers.live_settings import settings_of  # noqa: E402
from peftadvisor.profilers.seen import Lengths, largest  # noqa: E402
from tests.live_runs import (  # noqa: E402
    PARAMETERS,
    TOLERANCE,
    Texts,
    arguments,
    collate,
    exact,
    llama,
    lora,
    trained,
    with_peft,
)

pytestmark = pytest.mark.filterwarnings("ignore")


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
