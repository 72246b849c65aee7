"""Axolotl's configs: the run that each describes, what is named, what is refused, and changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.axolotl import TOOL
from peftadvisor.integrations.configs.axolotl_keys import LEFT_OUT
from peftadvisor.integrations.exports import FORMATS, Export
from peftadvisor.integrations.exports.axolotl import _differences
from peftadvisor.methods import find_method
from peftadvisor.specs import Job, RunSpec
from tests.config_cases import changed as changed_settings
from tests.config_reading import (
    CONFIGS,
    changed,
    file_of,
    lever_outcomes,
    of_values,
    require_read_back,
    untraced,
)
from tests.export_cases import advice, estimate_of, run_of

FILES = sorted(path.name for path in (CONFIGS / "axolotl").glob("*.yml"))
KERNELS = (
    "fused kernels of LoRA, on by default of axolotl 0.19.0, are left out: less memory than "
    "predicted"
)
MINIMAL: dict[str, Any] = {
    "base_model": "Qwen/Qwen2.5-7B",
    "datasets": [{"path": "d", "type": "alpaca"}],
    "learning_rate": 1e-4,
}
LORA = MINIMAL | {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
QLORA = LORA | {"adapter": "qlora", "load_in_4bit": True}


def read(values: dict[str, Any]) -> Any:
    return TOOL.read(of_values(values))


# --- the corpus -----------------------------------------------------------------------------------

METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dora.yml": (
        "google/gemma-2-2b",
        "dora",
        {
            "rank": 16,
            "alpha": 16,
            "dropout": 0.0,
            "target_modules": r"model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj",
        },
    ),
    "full-bf16.yml": ("meta-llama/Llama-3.2-1B", "full", {}),
    "lisa.yml": ("meta-llama/Llama-2-7b-hf", "lisa", {"active": 4, "interval": 20}),
    "lora-8bit.yml": (
        "openlm/none-of-ours",
        "lora",
        {
            "rank": 8,
            "alpha": 16,
            "dropout": 0.0,
            "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj"),
        },
    ),
    "lora-packed.yml": (
        "mistralai/Mistral-7B-v0.1",
        "lora",
        {"rank": 32, "alpha": 64, "dropout": 0.05, "target_modules": ("q_proj", "v_proj")},
    ),
    "loraplus.yml": (
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "lora-plus",
        {
            "rank": 8,
            "alpha": 16,
            "dropout": 0.0,
            "lr_ratio": 8,
            "target_modules": ("q_proj", "v_proj"),
        },
    ),
    "pissa.yml": (
        "meta-llama/Llama-3.1-8B",
        "pissa",
        {
            "rank": 32,
            "alpha": 32,
            "dropout": 0.0,
            "init": "pissa_niter_16",
            "target_modules": "all-linear",
        },
    ),
    "qlora.yml": ("Qwen/Qwen2.5-7B", "qlora", {"rank": 16, "alpha": 32, "dropout": 0.0}),
    "qlora-single-quant.yml": (
        "meta-llama/Meta-Llama-3-8B",
        "lora-all",
        {"rank": 64, "alpha": 16, "dropout": 0.1},
    ),
    "rslora-relora.yml": (
        "HuggingFaceTB/SmolLM2-360M",
        "rslora",
        {
            "rank": 128,
            "alpha": 32,
            "dropout": 0.0,
            "target_modules": (
                *("q_proj", "k_proj", "v_proj", "o_proj"),
                *("gate_proj", "up_proj", "down_proj"),
            ),
        },
    ),
}

TRAINING: dict[str, dict[str, Any]] = {
    "dora.yml": {
        "micro_batch_size": 2,
        "seq_len": 768,
        "padded": True,
        "dtype": "fp16",
        "optimizer": "sgd",
        "attention": "eager",
        "loss": "fused",
    },
    "full-bf16.yml": {
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "seq_len": 4096,
        "amp": True,
        "optimizer": "adamw-8bit",
        "gradient_checkpointing": "non-reentrant",
        "attention": "flash_attention_2",
        "max_grad_norm": 0.5,
    },
    "lisa.yml": {
        "seq_len": 1024,
        "amp": True,
        "optimizer": "adamw-8bit",
        "gradient_checkpointing": "reentrant",
        "attention": "flash_attention_2",
    },
    "lora-8bit.yml": {
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 8,  # batch_size 64 by 8
        "dtype": "fp16",
        "quantization": "int8",
        "optimizer": "adafactor",
        "attention": "flash_attention_2",
        "kbit_preparation": "none",
    },
    "lora-packed.yml": {
        "micro_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "seq_len": 2048,
        "amp": True,
        "optimizer": "adamw-8bit",
        "gradient_checkpointing": "reentrant",
        "attention": "flash_attention_2",
    },
    "loraplus.yml": {
        "padded": True,
        "dtype": "fp32",
        "optimizer": "adamw-fused",
        "gradient_checkpointing": "reentrant",
        "max_grad_norm": 0.0,
    },
    "pissa.yml": {
        "gradient_accumulation_steps": 4,
        "seq_len": 8192,
        "amp": True,
        "gradient_checkpointing": "reentrant",
        "attention": "flash_attention_2",
        "loss": "fused-linear",
    },
    "qlora.yml": {
        "padded": True,
        "amp": True,
        "quantization": "nf4-dq",
        "optimizer": "adamw-fused",
        "kbit_preparation": "none",
    },
    "qlora-single-quant.yml": {
        "gradient_accumulation_steps": 2,
        "seq_len": 1024,
        "padded": True,
        "dtype": "fp16",
        "amp": True,
        "quantization": "nf4",
        "optimizer": "paged-adamw-8bit",
        "gradient_checkpointing": "non-reentrant",
        "kbit_preparation": "none",
        "loss": "fused-linear",
    },
    "rslora-relora.yml": {
        "micro_batch_size": 4,
        "seq_len": 2048,
        "padded": True,
        "amp": True,
        "optimizer": "adamw-fused",
        "gradient_checkpointing": "non-reentrant",
    },
}
"""What differs from our defaults; the loop is always that of transformers' Trainer."""

REST: dict[str, tuple[Job, float, int | None, str]] = {
    "dora.yml": (Job(task="pretraining", steps=1), 0.01, None, "ddp"),
    "full-bf16.yml": (Job(task="pretraining", epochs=3.0), 1e-5, 2, "fsdp"),
    "lisa.yml": (Job(task="instruction", epochs=1.0), 5e-6, None, "ddp"),
    "lora-8bit.yml": (Job(task="instruction", epochs=1.0), 3e-4, None, "ddp"),
    "lora-packed.yml": (Job(task="instruction", epochs=1.0), 2e-4, None, "ddp"),
    "loraplus.yml": (Job(task="instruction", epochs=1.0), 1e-4, 4, "ddp"),
    "pissa.yml": (Job(task="instruction", epochs=1.0), 2e-5, None, "zero-2"),
    "qlora.yml": (Job(task="instruction", epochs=1.0), 2e-4, None, "ddp"),
    "qlora-single-quant.yml": (Job(task="instruction", steps=500), 1e-4, None, "zero-2"),
    "rslora-relora.yml": (Job(task="instruction", epochs=1.0), 5e-4, None, "ddp"),
}

NOTES: dict[str, tuple[str, ...]] = {
    "dora.yml": (KERNELS,),
    "full-bf16.yml": (
        LEFT_OUT["val_set_size"].text,
        "torchao's 8-bit AdamW is predicted as bitsandbytes', whose states are as large",
    ),
    "lisa.yml": ("attention by flash_attention_3 is predicted as flash_attention_2",),
    "lora-8bit.yml": (
        LEFT_OUT["lora_modules_to_save"].text,
        "attention by xformers is predicted as flash_attention_2",
    ),
    "lora-packed.yml": (KERNELS,),
    "loraplus.yml": (KERNELS,),
    "pissa.yml": (
        LEFT_OUT["fsdp_config.offload_params"].text,
        KERNELS,
        "cut cross-entropy is predicted as Liger's fused linear cross-entropy",
    ),
    "qlora.yml": (KERNELS,),
    "qlora-single-quant.yml": (
        LEFT_OUT["liger_rope"].text,
        "DeepSpeed's offload of optimizer states is left out of the prediction",
    ),
    "rslora-relora.yml": (
        LEFT_OUT["activation_offloading"].text,
        LEFT_OUT["torch_compile"].text,
        LEFT_OUT["relora"].text,
        KERNELS,
    ),
}


def test_the_corpus_is_covered() -> None:
    assert list(METHODS) == list(TRAINING) == list(REST) == list(NOTES)
    assert sorted(METHODS) == FILES


@pytest.mark.parametrize("name", FILES)
def test_what_a_config_describes(name: str) -> None:
    found = TOOL.read(file_of("axolotl", name))
    assert (found.tool, found.version) == ("axolotl", "0.19.0")
    method = (found.model, found.method.name, dict(found.method.settings))
    assert method == METHODS[name]
    assert changed_settings(found.training) == TRAINING[name] | {"loop": "trainer"}
    assert (found.job, found.learning_rate, found.gpus, found.sharding) == REST[name]
    assert found.notes == NOTES[name]
    assert found.unknown == (("micro_batchsize",) if name == "lisa.yml" else ())
    assert untraced(found) == set()
    find_method(found.method.name).settings(found.method)


@pytest.mark.parametrize("name", FILES)
def test_changes_are_read_back(name: str) -> None:
    found = lever_outcomes(TOOL, file_of("axolotl", name))
    without = {("optimizer", "adamw-loop"), ("quantization", "gptq")}
    if name in ("full-bf16.yml", "lisa.yml"):
        without |= {("quantization", kind) for kind in ("none", "nf4", "nf4-dq", "int8")}
    if name == "lora-8bit.yml":  # a model that is not on file, so Liger may not know it
        without |= {("loss", "fused"), ("loss", "fused-linear")}
    assert {lever for lever, outcome in found.items() if outcome == "no"} == without
    assert {outcome for lever, outcome in found.items() if lever not in without} == {"yes"}


def test_several_changes_at_once() -> None:
    file = file_of("axolotl", "qlora-single-quant.yml")
    change: dict[str, Any] = {
        "quantization": "int8",
        "micro_batch_size": 6,
        "loss": "torch",
        "seq_len": 256,
    }
    edits = TOOL.edits(file, TOOL.read(file), change)
    assert edits is not None
    after = TOOL.read(changed(file, edits)).training
    assert replace(TOOL.read(file).training, **change) == after
    assert TOOL.edits(file, TOOL.read(file), {"seq_len": 256, "dtype": "fp32"}) is None


def test_a_change_of_the_micro_batch_keeps_the_steps() -> None:
    file = file_of("axolotl", "lora-8bit.yml")
    edits = TOOL.edits(file, TOOL.read(file), {"micro_batch_size": 2})
    assert edits is not None
    after = TOOL.read(changed(file, edits)).training
    assert (after.micro_batch_size, after.gradient_accumulation_steps) == (2, 8)


def test_8bit_adam_under_fsdp2_is_torchaos() -> None:
    file = file_of("axolotl", "full-bf16.yml")
    edits = TOOL.edits(file, TOOL.read(file), {"optimizer": "adamw-8bit"})
    assert [edit.value for edit in edits or ()] == ["adamw_torch_8bit"]


# --- defaults and switches ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype", "amp"),
    [
        ({}, "bf16", True),
        ({"bf16": "auto"}, "bf16", True),
        ({"bf16": None}, "fp32", False),  # null is no auto
        ({"fp16": True}, "fp16", True),
        ({"fp16": True, "bf16": True}, "bf16", True),
        ({"bf16": False}, "fp32", False),
        ({"bf16": False, "bfloat16": True}, "bf16", True),  # autocast as well
        ({"bf16": False, "float16": True}, "fp16", False),
        ({"bf16": False, "float32": True}, "fp32", False),
        ({"float16": True}, "bf16", True),  # bf16 is auto
    ],
)
def test_dtypes(values: dict[str, Any], dtype: str, amp: bool) -> None:
    training = read(MINIMAL | values).training
    assert (training.dtype, training.amp) == (dtype, amp)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "none"),
        ({"gradient_checkpointing": True}, "reentrant"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {}}, "reentrant"),
        (
            {
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"use_reentrant": False},
            },
            "non-reentrant",
        ),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": False}}, "none"),
        ({"gradient_checkpointing": "offload"}, "reentrant"),
        ({"gradient_checkpointing": True, "selective_checkpointing": True}, "non-reentrant"),
        ({"fsdp_config": {"activation_checkpointing": True}}, "non-reentrant"),
        ({"fsdp_config": {"fsdp_activation_checkpointing": True}}, "non-reentrant"),
    ],
)
def test_checkpointing(values: dict[str, Any], kind: str) -> None:
    found = read(MINIMAL | values)
    assert found.training.gradient_checkpointing == kind
    assert found.unknown == ()


def test_gemma_4_is_never_reentrant() -> None:
    values = {
        "base_model": "google/gemma-4-E2B-it",
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": True},
    }
    file = of_values(MINIMAL | values)
    found = TOOL.read(file)
    assert found.training.gradient_checkpointing == "non-reentrant"
    assert TOOL.edits(file, found, {"gradient_checkpointing": "reentrant"}) is None
    assert TOOL.edits(file, found, {"gradient_checkpointing": "none"}) is not None


def test_offload_is_noted() -> None:
    found = read(MINIMAL | {"gradient_checkpointing": "offload"})
    assert LEFT_OUT["activation_offloading"].text in found.notes


@pytest.mark.parametrize(
    ("values", "attention", "padded"),
    [
        ({}, "sdpa", True),
        ({"sample_packing": True}, "sdpa", True),
        ({"sample_packing": True, "sdpa_varlen": True}, "sdpa", False),
        ({"sample_packing": True, "sdp_attention": True}, "sdpa", True),
        ({"sample_packing": True, "flash_attention": True}, "flash_attention_2", False),
        ({"flash_attention": True}, "flash_attention_2", True),
        ({"flash_attention": False, "eager_attention": True}, "eager", True),
        (
            {"sample_packing": "true", "attn_implementation": "kernels-community/flash-attn3@v1"},
            "flash_attention_2",
            False,
        ),
    ],
)
def test_packing(values: dict[str, Any], attention: str, padded: bool) -> None:
    training = read(MINIMAL | values).training
    assert (training.attention, training.padded) == (attention, padded)


@pytest.mark.parametrize(
    ("values", "loss", "note"),
    [
        (
            {"liger_cross_entropy": True},
            "torch",
            "Liger's losses have no effect without its plugin",
        ),
        ({"plugins": ["axolotl.integrations.liger.LigerPlugin"]}, "torch", None),
        ({"chunked_cross_entropy": True}, "torch", "chunked cross-entropy is predicted as torch's"),
        (
            {"plugins": ["a.CutCrossEntropyPlugin"], "cut_cross_entropy": False},
            "torch",
            None,
        ),
        ({"plugins": ["a.b.Other"]}, "torch", "what the plugin Other changes is left out"),
    ],
)
def test_losses(values: dict[str, Any], loss: str, note: str | None) -> None:
    found = read(LORA | values | {"lora_mlp_kernel": False})
    assert found.training.loss == loss
    assert found.notes == (() if note is None else (note,))


def test_batch_size_has_no_effect_beside_the_default() -> None:
    found = read(MINIMAL | {"micro_batch_size": 2, "batch_size": 32})
    assert found.training.gradient_accumulation_steps == 1
    trace = next(t for t in found.traced if t.name == "gradient_accumulation_steps")
    assert trace.source == "default of axolotl 0.19.0, in whose presence 'batch_size' has no effect"


@pytest.mark.parametrize(
    ("values", "sharding", "gpus"),
    [
        ({"fsdp": ["full_shard", "auto_wrap"]}, "fsdp", None),
        ({"fsdp": "no_shard"}, "ddp", None),
        ({"fsdp_version": 2}, "ddp", None),
        ({"fsdp_version": 2, "fsdp_config": {"reshard_after_forward": False}}, "zero-2", None),
        ({"fsdp_config": {"fsdp_sharding_strategy": "SHARD_GRAD_OP"}}, "zero-2", None),
        ({"fsdp_config": {"reshard_after_forward": "FULL_SHARD"}}, "fsdp", None),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, "zero-3", None),
        ({"dp_shard_size": 4, "dp_replicate_size": 2}, "fsdp", 8),
        ({"ray_num_workers": 4}, "ddp", None),
    ],
)
def test_sharding(values: dict[str, Any], sharding: str, gpus: int | None) -> None:
    found = read(MINIMAL | values)
    assert (found.sharding, found.gpus, found.unknown) == (sharding, gpus, ())


# --- names that nobody knows, and refusals --------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *("micro_batchsize", "lora_rank", "sequence_length", "gradient_checkpoint", "load_in4bit"),
        *("optimiser", "lora_targets_linear", "sample_packin", "liger_fused_cross_entropy"),
        *("fsdp_cfg", "per_device_train_batch_size"),
    ],
)
def test_misspelt_keys_are_named(key: str) -> None:
    assert read(MINIMAL | {key: 1}).unknown == (key,)


def test_misspelt_keys_inside_are_named() -> None:
    values = {
        "gradient_checkpointing_kwargs": {"reentrant": False},
        "fsdp_config": {"offload_param": True},
        "bnb_config_kwargs": {"bnb_4bit_double_quant": False},
    }
    assert read(QLORA | values).unknown == (
        "gradient_checkpointing_kwargs.reentrant",
        "fsdp_config.offload_param",
        "bnb_config_kwargs.bnb_4bit_double_quant",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_model": None}, "config.yml lacks 'base_model', which axolotl needs"),
        ({"learning_rate": None}, "config.yml lacks 'learning_rate'"),
        ({"datasets": None}, "config.yml lacks 'datasets'"),
        ({"learning_rate": "fast"}, "config.yml: 'learning_rate' is fast; write a number"),
        ({"micro_batch_size": 0}, "config.yml: 'micro_batch_size' is 0; write a whole number"),
        ({"micro_batch_size": 2.5}, "'micro_batch_size' is 2.5; write a whole number"),
        ({"sequence_len": "long"}, "'sequence_len' is long; write a number"),
        ({"bf16": "full"}, "'bf16' is full; write true or false"),
        ({"sample_packing": "maybe"}, "'sample_packing' is maybe; write true or false"),
        ({"gradient_checkpointing": "some"}, "'gradient_checkpointing' is some; write true"),
        ({"optimizer": "lion_8bit"}, "'optimizer' is lion_8bit; known here: adamw_torch,"),
        ({"attn_implementation": "flash"}, "'attn_implementation' is flash; known here: sdpa,"),
        ({"adapter": "mora"}, "'adapter' is mora; known here: lora, qlora"),
        ({"num_epochs": 0}, "'num_epochs' is 0; write a number above 0"),
        ({"max_steps": "ten"}, "'max_steps' is ten; write a number"),
        ({"rl": "dpo"}, "'rl' trains on pairs, rewards or with a second model"),
        ({"reward_model": True}, "'reward_model' trains on pairs"),
        ({"unfrozen_parameters": ["a"]}, "'unfrozen_parameters' trains chosen weights"),
        ({"batch_size": 8, "gradient_accumulation_steps": 2}, "has both"),
        (
            {"batch_size": 2, "micro_batch_size": 4, "gradient_accumulation_steps": None},
            "'batch_size' is below 'micro_batch_size'",
        ),
        ({"load_in_4bit": True}, "'load_in_4bit' without 'adapter' is refused by axolotl"),
        ({"deepspeed": "a.json", "fsdp": ["full_shard"]}, "both 'deepspeed' and 'fsdp'"),
        ({"fsdp_config": {"sharding_strategy": "half"}}, "known here: full_shard"),
        (
            {"model_quantization_config": "Mxfp4Config"},
            "holds the base in a type that is not predicted",
        ),
        (
            {"chunked_cross_entropy": True, "flash_attn_cross_entropy": True},
            "asks for several losses: flash_attn_cross_entropy, chunked_cross_entropy",
        ),
        (LORA | {"lora_r": None}, "lacks 'lora_r', which axolotl has no default for"),
        (LORA | {"lora_alpha": None}, "lacks 'lora_alpha'"),
        (LORA | {"lora_target_linear": None}, "names no layers for LoRA"),
        (
            LORA | {"lora_target_linear": False, "lora_target_modules": "q_proj, v_proj"},
            "write a list of names; axolotl takes a text for a pattern",
        ),
        (LORA | {"load_in_4bit": True}, "loads no 4-bit weights in axolotl 0.19.0"),
        (LORA | {"peft_init_lora_weights": "eva"}, "'peft_init_lora_weights' is eva; known here"),
        (QLORA | {"load_in_4bit": False}, "'adapter: qlora' needs 'load_in_4bit: true'"),
        (QLORA | {"load_in_8bit": True}, "'adapter: qlora' needs 'load_in_4bit: true'"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(MINIMAL | values)
    assert message in str(raised.value)
    assert str(raised.value).startswith("config.yml")


@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}, "", "x", -1, 1e30, True, "\x1b[0m"])
@pytest.mark.parametrize("key", sorted({*QLORA, "plugins", "fsdp_config", "deepspeed", "fsdp"}))
def test_odd_values_end_in_one_line(key: str, value: Any) -> None:
    said = ""
    try:
        read(QLORA | {key: value})
    except UsageError as error:
        said = str(error)
    assert said == "" or said.isprintable()


def test_marks() -> None:
    assert TOOL.marks(QLORA) > 5
    assert TOOL.marks({"model_name_or_path": "m", "datasets": []}) == 0


# --- exports, read back ---------------------------------------------------------------------------

ADVICE = advice(learning_rate=2e-4, schedule="cosine", warmup_ratio=0.03, epochs=3)
RUNS = [
    run_of("full", amp=True, optimizer="adamw-fused"),
    run_of("lora", micro_batch_size=4, gradient_checkpointing="non-reentrant", loss="fused"),
    run_of("lora-all", gradient_checkpointing="reentrant", attention="flash_attention_2"),
    run_of("qlora", quantization="nf4-dq", optimizer="paged-adamw-8bit", amp=True),
    run_of("lora", quantization="nf4", dtype="fp16", padded=True, loss="fused-linear"),
    run_of("lora-all", quantization="int8", seq_len=2048, optimizer="adafactor"),
    run_of("dora", dtype="fp16", attention="eager", max_grad_norm=0.0),
    run_of("rslora", gradient_accumulation_steps=8, optimizer="sgd"),
    run_of("lora-plus", optimizer="adamw-8bit"),
    run_of("pissa"),
    run_of("olora", dtype="fp32"),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.method.name)
def test_exports_are_read_back(run: RunSpec) -> None:
    export = Export(estimate=estimate_of(run), advised=ADVICE, job=Job(), made=date(2026, 11, 28))
    found = read(yaml.safe_load(FORMATS["axolotl"].write(export)))
    require_read_back(export, found, _differences(export))
    assert found.method.name in (run.method.name, "lora", "lora-all")
