"""LLaMA-Factory's configs: what each file comes to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.specs import Job
from tests.config_cases import CONFIGS, Case, read, require_run, written

USUAL = {
    "micro_batch_size": 8,
    "seq_len": 2048,
    "padded": True,
    "optimizer": "adamw-fused",
    "gradient_checkpointing": "reentrant",
    "loop": "trainer",
}
"""What a file that says nothing of these comes to."""


def usual(*but: str, **more: Any) -> dict[str, Any]:
    return {**{name: value for name, value in USUAL.items() if name not in but}, **more}


SFT = Job(task="instruction", epochs=3.0)
BASE = {"model_name_or_path": "Qwen/Qwen2.5-7B", "template": "qwen", "dataset": "notes"}

FILES: dict[str, Case] = {
    "lora_sft.yaml": (
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "lora-all",
        {"rank": 16, "alpha": 32},  # twice the rank
        usual(micro_batch_size=2, gradient_accumulation_steps=8, seq_len=4096, amp=True),
        SFT,
        1e-4,
    ),
    "qlora_defaults.yaml": (
        "Qwen/Qwen2.5-7B-Instruct",
        "qlora",
        {},  # rank 8, alpha 16 are the defaults of both
        {**USUAL, "amp": True, "quantization": "nf4-dq", "kbit_preparation": "none"},
        SFT,
        5e-5,
    ),
    "qlora_plain.yaml": (
        "mistralai/Mistral-7B-v0.3",
        "rslora",
        {"rank": 64, "dropout": 0.05},  # query and value are rslora's own
        usual(
            "padded",  # pretraining packs
            micro_batch_size=4,
            amp=True,
            quantization="nf4",
            kbit_preparation="trl",
            optimizer="paged-adamw-8bit",
            attention="flash_attention_2",
        ),
        Job(task="pretraining", steps=2000),
        1e-4,
    ),
    "int8_dora.yml": (
        "huggyllama/llama-7b",
        "dora",
        {"alpha": 32, "target_modules": ("q_proj", "k_proj", "v_proj", "o_proj")},
        usual(
            "gradient_checkpointing",
            seq_len=1024,
            dtype="fp16",
            amp=True,
            quantization="int8",
            kbit_preparation="none",
            attention="eager",
        ),
        SFT,
        5e-5,
    ),
    "loraplus_pissa.yaml": (
        "Qwen/Qwen2.5-1.5B",
        "pissa",
        {"alpha": 16, "target_modules": "all-linear"},
        {**USUAL, "amp": True, "gradient_checkpointing": "non-reentrant", "loss": "fused-linear"},
        SFT,
        5e-5,
    ),
    "full_zero3.yaml": (
        "meta-llama/Llama-3.1-8B",
        "full",
        {},
        {
            "gradient_accumulation_steps": 2,
            "seq_len": 2048,
            "dtype": "fp32",
            "amp": True,
            "optimizer": "adamw-fused",
            "gradient_checkpointing": "reentrant",
            "loop": "trainer",
        },
        SFT,
        1e-5,
    ),
    "full_pure_bf16.json": (
        "HuggingFaceTB/SmolLM2-1.7B",
        "full",
        {},
        {
            "micro_batch_size": 8,
            "seq_len": 8192,
            "optimizer": "adafactor",
            "gradient_checkpointing": "reentrant",
            "max_grad_norm": 0.5,
            "loop": "trainer",
        },
        Job(task="pretraining", epochs=1.0),
        5e-5,
    ),
    "galore.yaml": (
        "meta-llama/Llama-2-7b-hf",
        "galore",
        {"scale": 2.0},
        usual("optimizer", dtype="fp16"),  # weights stay as the checkpoint's
        SFT,
        5e-5,
    ),
    "apollo.yaml": (
        "meta-llama/Llama-2-7b-hf",
        "apollo",
        {},  # rank 256 and scale 1 are our defaults
        usual("optimizer", dtype="fp32", amp=True),
        SFT,
        5e-5,
    ),
    "badam.yaml": ("meta-llama/Meta-Llama-3-8B", "badam", {}, USUAL, SFT, 5e-5),
    "oft.yaml": (
        "Qwen/Qwen2.5-7B",
        "oft",
        {"block_size": 64, "target_modules": "all-linear"},
        {**USUAL, "amp": True},  # neat packing under sdpa brings a mask
        SFT,
        5e-5,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_to_its_run(name: str) -> None:
    config = read(f"llamafactory/{name}")
    assert (config.tool, config.version) == ("llamafactory", "0.9.5")
    assert (config.gpus, config.unknown) == (None, ())
    require_run(config, FILES[name])


def test_every_file_has_its_case() -> None:
    assert {path.name for path in (CONFIGS / "llamafactory").iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("name", "sharding", "notes"),
    [
        ("lora_sft.yaml", "ddp", ("evaluation is left out",)),
        (
            "full_zero3.yaml",
            "zero-3",
            ("DeepSpeed holds 16-bit weights and fp32 copies, predicted as fp32 weights",),
        ),
        ("full_pure_bf16.json", "zero-1", ()),
        ("badam.yaml", "ddp", ("do_train is not true, without which nothing is trained",)),
        ("oft.yaml", "ddp", ("module_dropout is left out of the prediction",)),
        (
            "loraplus_pissa.yaml",
            "ddp",
            (
                "lora-plus (another learning rate for B) besides pissa is left out of the "
                "prediction",
            ),
        ),
    ],
)
def test_division_and_notes(name: str, sharding: str, notes: tuple[str, ...]) -> None:
    config = read(f"llamafactory/{name}")
    assert (config.sharding, config.notes) == (sharding, notes)


def test_traces_name_the_key_or_the_default() -> None:
    traced = {trace.name: trace for trace in read("llamafactory/qlora_defaults.yaml").traced}
    assert traced["quantization"].key is None
    assert traced["quantization"].source == (
        "default of llamafactory 0.9.5, beside quantization_bit: 4"
    )
    assert traced["amp"].source == "bf16: true"
    assert traced["alpha"].source == "default of llamafactory 0.9.5: twice the rank"
    assert traced["dtype"].source == "the checkpoint of Qwen/Qwen2.5-7B-Instruct"


def test_unknown_keys_are_named_and_misspelt_ones_are_unknown(tmp_path: Path) -> None:
    values = {**BASE, "per_device_train_batchsize": 2, "lora_rang": 4, "logging_steps": 1}
    config = read(written(tmp_path, values))
    assert set(config.unknown) == {"per_device_train_batchsize", "lora_rang"}
    assert config.training.micro_batch_size == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stage": "dpo"}, "'stage' is dpo; runs of two models or on pairs are not predicted"),
        ({"stage": "sftt"}, "'stage' is sftt; known here: sft, pt"),
        ({"finetuning_type": "freeze"}, "'finetuning_type' is freeze; training some layers alone"),
        ({"optim": "lion_32bit"}, "'optim' is lion_32bit; known here: adamw_torch, adamw_torch_f"),
        ({"optim": "paged_adamw_32bit"}, "'optim' is paged_adamw_32bit; known here"),
        ({"cutoff_len": "long"}, "'cutoff_len' is long; write a number"),
        ({"lora_rank": 0}, "'lora_rank' is 0; write a whole number of 1 or more"),
        ({"quantization_bit": 3}, "'quantization_bit' is 3; known here: 4, 8"),
        ({"quantization_method": "hqq"}, "'quantization_method' is hqq; known here: bnb"),
        ({"bf16": True, "fp16": True}, "'bf16' and 'fp16' are both true; keep one of them"),
        ({"bf16": "maybe"}, "'bf16' is maybe; write true or false"),
        ({"pure_bf16": True, "bf16": True}, "'pure_bf16' goes without bf16 and fp16"),
        ({"flash_attn": "fa3"}, "'flash_attn' is fa3; known here: auto, sdpa, fa2, disabled"),
        ({"use_galore": True}, "'use_galore' goes with finetuning_type full"),
        ({"finetuning_type": "full", "quantization_bit": 4}, "'quantization_bit' goes with"),
        ({"pissa_init": True, "quantization_bit": 4}, "'pissa_init' does not go with a quantized"),
        ({"additional_target": "embed_tokens"}, "'additional_target' is embed_tokens; modules"),
        ({"use_adam_mini": True}, "'use_adam_mini' is true; it is not predicted"),
        ({"finetuning_type": "oft", "oft_rank": 8}, "'oft_rank' is 8; write 0 and the size of"),
        ({"deepspeed": "nowhere.json"}, "'deepspeed' is nowhere.json, which is not there"),
        ({"max_steps": "many"}, "'max_steps' is many; write a whole number, or -1 for none"),
        (
            {"finetuning_type": "full", "use_badam": True, "badam_mode": "ratio"},
            "'badam_mode' is ratio; only layer is predicted",
        ),
        (
            {"finetuning_type": "full", "use_galore": True, "galore_layerwise": True},
            "'galore_layerwise' is true; only false is predicted",
        ),
        (
            {"finetuning_type": "full", "use_galore": True, "optim": "adafactor"},
            "'optim' is adafactor; galore is predicted with adamw_torch alone",
        ),
    ],
)
def test_refusals_name_file_and_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = written(tmp_path, {**BASE, **values})
    with pytest.raises(UsageError) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_config_for_prediction_trains_nothing(tmp_path: Path) -> None:
    values = {"model_name_or_path": "Qwen/Qwen2.5-7B", "template": "qwen", "do_predict": True}
    with pytest.raises(UsageError, match=r"trains nothing, as it has neither 'do_train: true' nor"):
        read(written(tmp_path, values))


def test_rays_workers_are_gpus(tmp_path: Path) -> None:
    assert read(written(tmp_path, {**BASE, "ray_num_workers": 4})).gpus == 4


def test_no_model_is_refused_by_its_key(tmp_path: Path) -> None:
    path = written(tmp_path, {"stage": "sft", "template": "qwen", "dataset": "notes"})
    with pytest.raises(UsageError, match=r"has no 'model_name_or_path'; name the model there"):
        read(path)


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"fp16": True}, "amp", True),
        ({}, "amp", False),
        ({"packing": True}, "padded", False),
        ({"neat_packing": True, "flash_attn": "fa2"}, "padded", False),
        ({"neat_packing": True}, "padded", True),
        ({"quantization_bit": 4, "double_quantization": False}, "quantization", "nf4"),
        ({"quantization_bit": 4, "quantization_type": "fp4"}, "quantization", "nf4-dq"),
        ({"quantization_bit": None}, "quantization", "none"),
        ({"model_name_or_path": "google/gemma-2-2b"}, "attention", "eager"),
        ({"model_name_or_path": "google/gemma-2-2b", "flash_attn": "sdpa"}, "attention", "sdpa"),
        ({"enable_liger_kernel": True}, "loss", "fused-linear"),
        ({"use_liger_kernel": True}, "loss", "fused-linear"),
        ({"disable_gradient_checkpointing": True}, "gradient_checkpointing", "none"),
        (
            {"disable_gradient_checkpointing": True, "gradient_checkpointing": True},
            "gradient_checkpointing",
            "non-reentrant",
        ),
        ({"enable_liger_kernel": True, "model_name_or_path": "microsoft/phi-2"}, "loss", "torch"),
        ({"max_grad_norm": "0"}, "max_grad_norm", 0.0),
        ({"model_name_or_path": "somebody/unheard-of"}, "dtype", "bf16"),
        ({"model_name_or_path": "openai-community/gpt2"}, "dtype", "fp32"),
    ],
)
def test_single_keys(tmp_path: Path, values: dict[str, Any], field: str, expected: Any) -> None:
    config = read(written(tmp_path, {**BASE, **values}))
    assert getattr(config.training, field) == expected
