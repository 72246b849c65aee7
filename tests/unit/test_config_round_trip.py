"""Exports read back, and edits read back: the same run but for what is documented to differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, get_args

import pytest

from peftadvisor.integrations.exports import FORMATS, Export, llamafactory, trl
from peftadvisor.integrations.exports.value import as_run
from peftadvisor.methods import find_method
from peftadvisor.specs import Checkpointing, Job, Loss, MethodSpec, Optimizer, Quantization, RunSpec
from tests.config_cases import CONFIGS, after, changed, read
from tests.export_cases import advice, estimate_of, run_of

DIFFERENCES = {"llamafactory": llamafactory._differences, "trl": trl._differences}
ADVICE = advice(learning_rate=2e-4, schedule="cosine", epochs=3)
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 32, "alpha": 8, "dropout": 0.1, "target_modules": ("q_proj", "o_proj")},
    "lora-all": {"rank": 4},
    "qlora": {"alpha": 64},
    "dora": {},
    "rslora": {"dropout": 0.05},
    "lora-plus": {"lr_ratio": 8},
    "pissa": {"init": "pissa_niter_16"},
    "oft": {},
    "galore": {"rank": 64, "gap": 100, "scale": 2.0},
    "apollo": {"rank": 16, "gap": 10},
    "badam": {"interval": 20},
    "full": {},
}
WHOLE = ("full", "galore", "apollo", "badam")


def exported(fmt: str, run: RunSpec, folder: Path) -> tuple[Path, Export]:
    export = Export(estimate=estimate_of(run), advised=ADVICE, job=Job(), made=date(2026, 11, 28))
    path = folder / "config.yaml"
    path.write_text(FORMATS[fmt].write(export), encoding="utf-8")
    return path, export


def trainings(fmt: str, method: str) -> Iterator[dict[str, Any]]:
    plain = {"optimizer": "adamw-fused", "seq_len": 777, "micro_batch_size": 3}
    amp = {"amp": True} if method not in WHOLE or fmt == "trl" else {"amp": False}
    yield {**plain, **amp}
    yield {**plain, **amp, "gradient_checkpointing": "reentrant", "padded": True}
    yield {**plain, **amp, "gradient_checkpointing": "non-reentrant", "max_grad_norm": 0.3}
    yield {**plain, **amp, "gradient_accumulation_steps": 9, "attention": "flash_attention_2"}
    if method in ("lora", "lora-all", "dora", "qlora"):
        for quantization in ("nf4", "nf4-dq", "int8"):
            yield {**plain, **amp, "quantization": quantization, "kbit_preparation": "none"}


CASES = [
    (fmt, method, training)
    for fmt in DIFFERENCES
    for method in sorted(FORMATS[fmt].methods)
    for training in trainings(fmt, method)
]


@pytest.mark.parametrize(("fmt", "method", "training"), CASES)
def test_an_export_is_read_back(
    fmt: str, method: str, training: dict[str, Any], tmp_path: Path
) -> None:
    if method in ("galore", "apollo"):
        training = {**training, "optimizer": "adamw"}
    run = run_of(method, model="meta-llama/Llama-3.2-1B", **training)
    run = replace(run, method=MethodSpec(name=method).with_settings(**SETTINGS[method]))
    path, export = exported(fmt, run, tmp_path)
    config = read(path)
    assert config.tool == fmt
    assert config.model == run.model.id
    assert config.unknown == ()
    told, meant = (find_method(m.name).settings(m) for m in (config.method, run.method))
    assert config.method.name == _renamed(run)
    if method == "oft":  # the size and the layers that PEFT takes for this model
        assert (told["target_modules"], told["block_size"]) == (None, 32)
    else:
        assert told == meant
    expected = as_run(run, DIFFERENCES[fmt](export)).training
    assert changed(config.training) == changed(expected)
    assert (config.learning_rate, config.job.epochs) == (2e-4, 3.0)


def _renamed(run: RunSpec) -> str:
    """LoRA on everything has another name where the base has 4 bits, and takes it elsewhere."""
    four = run.training.quantization in ("nf4", "nf4-dq")
    if run.method.name in ("qlora", "lora-all"):
        return "qlora" if four else "lora-all"
    return run.method.name


@pytest.mark.parametrize("sharding", ["ddp", "fsdp", "zero-1", "zero-2", "zero-3"])
def test_trls_division_is_read_back(sharding: Any, tmp_path: Path) -> None:
    run = replace(run_of("lora", amp=True), gpus=4, sharding=sharding)
    config = read(exported("trl", run, tmp_path)[0])
    assert (config.gpus, config.sharding) == (4, sharding)


@pytest.mark.parametrize("sharding", ["ddp", "zero-1", "zero-2", "zero-3"])
def test_llamafactorys_division_is_read_back(sharding: Any, tmp_path: Path) -> None:
    run = replace(run_of("lora", amp=True), gpus=4, sharding=sharding)
    config = read(exported("llamafactory", run, tmp_path)[0])
    assert (config.gpus, config.sharding) == (None, sharding)  # the command decides the number


LEVERS: dict[str, tuple[Any, ...]] = {
    "micro_batch_size": (1, 3),
    "gradient_accumulation_steps": (1, 7),
    "seq_len": (333,),
    "gradient_checkpointing": get_args(Checkpointing),
    "optimizer": get_args(Optimizer),
    "quantization": get_args(Quantization),
    "loss": get_args(Loss),
}
FILES = [
    path.relative_to(CONFIGS)
    for path in sorted(CONFIGS.rglob("*.*"))
    if path.relative_to(CONFIGS).parts[0] in ("llamafactory", "trl", "trainer", "runspec")
    and path.relative_to(CONFIGS).as_posix() != "trl/saved/adapter_config.json"
]
UNSAYABLE = {
    "llamafactory": {("optimizer", "adamw-loop"), ("loss", "fused"), ("quantization", "gptq")},
    "trl": {
        *(("loss", value) for value in get_args(Loss)),  # it has one, whatever is said
        ("optimizer", "adamw-loop"),
        ("quantization", "gptq"),
    },
    "trainer": {
        *(("quantization", value) for value in get_args(Quantization)),
        ("optimizer", "adamw-loop"),
        ("seq_len", 333),
    },
    "runspec": set(),
}
"""What a tool may have no word for; that it has for all else is asserted for the files below."""


@pytest.mark.parametrize("name", FILES, ids=str)
def test_every_lever_reads_back_as_it_was_set(name: Path) -> None:
    before = read(name)
    for lever, values in LEVERS.items():
        for value in values:
            config = after(CONFIGS / name, {lever: value})
            if config is None:
                continue
            assert getattr(config.training, lever) == value, (lever, value)
            kept = {lever: value}
            if lever == "quantization":
                kept["kbit_preparation"] = config.training.kbit_preparation
            assert config.training == replace(before.training, **kept), (lever, value)
            assert config.unknown == before.unknown


@pytest.mark.parametrize("name", ["llamafactory/lora_sft.yaml", "trl/qlora.yaml"])
def test_every_lever_that_a_tool_has_can_be_said(name: str) -> None:
    tool = name.split("/")[0]
    for lever, values in LEVERS.items():
        for value in values:
            said = after(CONFIGS / name, {lever: value}) is not None
            assert said or (lever, value) in UNSAYABLE[tool], (lever, value)


def test_every_lever_of_our_own_can_be_said() -> None:
    for name in ("run.json", "estimate.json"):
        for lever, values in LEVERS.items():
            for value in values:
                assert after(CONFIGS / "runspec" / name, {lever: value}) is not None


def test_several_levers_at_once() -> None:
    change = {"micro_batch_size": 1, "seq_len": 512, "optimizer": "adamw-8bit"}
    config = after(CONFIGS / "llamafactory" / "lora_sft.yaml", change)
    assert config is not None
    assert {name: getattr(config.training, name) for name in change} == change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("llamafactory/full_zero3.yaml", {"quantization": "nf4-dq"}),
        ("llamafactory/loraplus_pissa.yaml", {"quantization": "nf4"}),
        ("llamafactory/galore.yaml", {"optimizer": "adamw-8bit"}),
        ("trl/sft_full.yaml", {"quantization": "nf4-dq"}),
        ("trl/sft_full.yaml", {"loss": "torch"}),
        ("trl/anchors.yaml", {"gradient_checkpointing": "non-reentrant"}),  # ZeRO-3 with PEFT
        ("trainer/lora/training_args.json", {"seq_len": 256}),
        ("trainer/lora/training_args.json", {"quantization": "nf4"}),
        ("trainer/lora/adapter_config.json", {"micro_batch_size": 1}),  # stands in the other file
        ("trainer/full/training_args.json", {"loss": "fused-linear"}),  # Liger has no T5
        ("trainer/galore/training_args.json", {"optimizer": "sgd"}),
        ("runspec/run.json", {"dtype": "bf16"}),
    ],
)
def test_what_a_tool_has_no_word_for(name: str, change: dict[str, Any]) -> None:
    assert after(CONFIGS / name, change) is None
