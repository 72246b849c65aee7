"""TRL's configs: what each file comes to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.accelerate import PACKAGED, launch, launch_of
from peftadvisor.specs import Job
from tests.config_cases import CONFIGS, Case, read, require_run, written

USUAL = {
    "micro_batch_size": 8,
    "seq_len": 1024,
    "padded": True,
    "amp": True,  # bf16 unless told otherwise
    "optimizer": "adamw-fused",
    "gradient_checkpointing": "non-reentrant",
    "loss": "fused-linear",
    "loop": "trainer",
}


def usual(*but: str, **more: Any) -> dict[str, Any]:
    return {**{name: value for name, value in USUAL.items() if name not in but}, **more}


BASE = {"model_name_or_path": "Qwen/Qwen2.5-7B", "dataset_name": "notes"}
LORA = {"rank": 16, "alpha": 32, "dropout": 0.05}
"""TRL's own defaults of LoRA."""

FILES: dict[str, Case] = {
    "sft_full.yaml": (
        "Qwen/Qwen2.5-0.5B",
        "full",
        {},
        usual(dtype="fp32"),  # TRL loads in fp32 unless told otherwise
        Job(task="instruction", epochs=3.0),
        1e-4,
    ),
    "qlora.yaml": (
        "meta-llama/Llama-3.1-8B",
        "qlora",
        {"rank": 32, "alpha": 64, "dropout": 0.05},
        usual(
            "padded",
            "micro_batch_size",
            gradient_accumulation_steps=16,
            seq_len=2048,
            quantization="nf4-dq",
            kbit_preparation="none",
            attention="flash_attention_2",
            optimizer="paged-adamw-8bit",
            gradient_checkpointing="reentrant",
            max_grad_norm=0.3,
        ),
        Job(task="instruction", epochs=1.0),
        2e-4,
    ),
    "earlier_names.yaml": (
        "HuggingFaceTB/SmolLM2-360M",
        "dora",
        {"rank": 16, "alpha": 32},
        usual("gradient_checkpointing", "seq_len", dtype="fp16"),  # 512 is the default of ours
        Job(task="instruction", steps=100),
        2e-5,
    ),
    "anchors.yaml": (
        "google/gemma-2-2b",
        "rslora",
        {"dropout": 0.05},
        usual(
            quantization="int8",
            kbit_preparation="none",
            attention="eager",
            gradient_checkpointing="reentrant",  # forced by PEFT with ZeRO-3
        ),
        Job(task="instruction", epochs=3.0),
        2e-5,
    ),
    "fsdp.json": (
        "mistralai/Mistral-7B-v0.3",
        "full",
        {},
        usual("padded", "optimizer", seq_len=4096),
        Job(task="instruction", epochs=3.0),
        2e-5,
    ),
    "deepspeed_inline.json": (
        "HuggingFaceTB/SmolLM3-3B",
        "lora",
        {**LORA, "target_modules": ("gate_proj", "up_proj", "down_proj")},
        usual("loss"),  # smoothed labels need the logits
        Job(task="instruction", epochs=3.0),
        2e-5,
    ),
    "saved/training_args.json": (  # an SFTConfig as it is saved, and the adapter beside it
        "Qwen/Qwen2.5-7B",
        "lora",
        {"rank": 16, "alpha": 32, "target_modules": ("o_proj", "q_proj")},
        usual(micro_batch_size=2, gradient_accumulation_steps=8),
        Job(task="instruction", epochs=3.0),
        2e-4,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_comes_to_its_run(name: str) -> None:
    config = read(f"trl/{name}")
    assert (config.tool, config.version) == ("trl", "1.16.0")
    require_run(config, FILES[name])


def test_every_file_has_its_case() -> None:
    found = {str(path.relative_to(CONFIGS / "trl")) for path in (CONFIGS / "trl").rglob("*.*")}
    assert found - {"saved/adapter_config.json"} == set(FILES)


def test_an_adapter_beside_trls_arguments_leads_to_them() -> None:
    with pytest.raises(
        UsageError, match=r"the arguments beside it are TRL's; pass .*training_args"
    ):
        read("trl/saved/adapter_config.json")


@pytest.mark.parametrize(
    ("name", "gpus", "sharding", "unknown"),
    [
        ("sft_full.yaml", None, "ddp", ()),
        ("anchors.yaml", 4, "zero-3", ("defaults",)),  # four processes, not the packaged eight
        ("fsdp.json", 2, "fsdp", ()),
        ("deepspeed_inline.json", None, "zero-2", ()),
    ],
)
def test_division_and_unknown_keys(
    name: str, gpus: int | None, sharding: str, unknown: tuple[str, ...]
) -> None:
    config = read(f"trl/{name}")
    assert (config.gpus, config.sharding, config.unknown) == (gpus, sharding, unknown)


def test_notes_say_what_differs() -> None:
    assert read("trl/earlier_names.yaml").notes == (
        "evaluation is left out",
        "max_seq_length is an earlier name of max_length",
        "torch_dtype is an earlier name of dtype",
        "evaluation_strategy is an earlier name of eval_strategy",
    )
    assert read("trl/deepspeed_inline.json").notes == (
        "DeepSpeed's offload of optimizer states is left out of the prediction",
        "label smoothing is left out of the prediction",
    )
    assert read("trl/qlora.yaml").notes == (
        "adapters of a quantized base are trained in bf16, and predicted in fp32",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"beta": 0.1}, "'beta' is a key of TRL's trainers for preferences"),
        ({"num_generations": 8}, "'num_generations' is a key of TRL's trainers"),
        ({"load_in_4bit": True}, "a quantized model needs 'use_peft: true'"),
        (
            {"use_peft": True, "load_in_4bit": True, "load_in_8bit": True},
            "load_in_4bit and load_in_8bit are both true; keep one of them",
        ),
        ({"max_length": None}, "'max_length' is null, which leaves examples at full length"),
        (
            {"attn_implementation": "flash_attention_3"},
            "'attn_implementation' is flash_attention_3",
        ),
        ({"dtype": "int4"}, "'dtype' is int4; known here: bfloat16"),
        ({"optim": "lomo"}, "'optim' is lomo; known here: adamw_torch"),
        ({"lora_modules_to_save": ["lm_head"]}, "'lora_modules_to_save' is ['lm_head']; modules"),
        ({"accelerate_config": "zero9"}, "'accelerate_config' is zero9, which is no file here"),
        ({"fsdp": "full_share"}, "'fsdp' is full_share; known here: true, full_shard"),
        ({"gradient_checkpointing_kwargs": 3}, "'gradient_checkpointing_kwargs' is 3; write a map"),
        ({"num_processes": "two"}, "'num_processes' is two; write a number"),
    ],
)
def test_refusals_name_file_and_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = written(tmp_path, {**BASE, **values})
    with pytest.raises(UsageError) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"bf16": False}, "amp", False),
        ({"bf16": False, "accelerate_config": "multi_gpu"}, "amp", True),
        ({"fp16": True, "dtype": "float16"}, "amp", True),
        ({"dtype": "auto"}, "dtype", "bf16"),
        ({"packing": True}, "padded", False),
        ({"fsdp": "shard_grad_op auto_wrap"}, "padded", True),
        (
            {"attn_implementation": "kernels-community/flash-attn2"},
            "attention",
            "flash_attention_2",
        ),
        (
            {"gradient_checkpointing_kwargs": '{"use_reentrant": true}'},
            "gradient_checkpointing",
            "reentrant",
        ),
        ({"model_init_kwargs": {"torch_dtype": "float16"}}, "dtype", "fp16"),
    ],
)
def test_single_keys(tmp_path: Path, values: dict[str, Any], field: str, expected: Any) -> None:
    config = read(written(tmp_path, {**BASE, **values}))
    assert getattr(config.training, field) == expected
    assert config.unknown == ()


def test_misspelt_keys_are_unknown(tmp_path: Path) -> None:
    values = {**BASE, "use_peft": True, "lora_rank": 8, "gradient_accumulation": 2}
    assert set(read(written(tmp_path, values)).unknown) == {"lora_rank", "gradient_accumulation"}


def test_lora_without_use_peft_is_said_to_be_without_effect(tmp_path: Path) -> None:
    config = read(written(tmp_path, {**BASE, "lora_r": 8}))
    assert config.method.name == "full"
    assert config.notes == ("lora_r is without effect, as use_peft is not true",)


@pytest.mark.parametrize(
    ("name", "gpus", "sharding", "precision", "notes"),
    [
        ("fsdp2.yaml", 2, "fsdp", "bf16", ()),
        (
            "zero2.yaml",
            8,
            "zero-2",
            None,
            ("DeepSpeed's offload of optimizer states is left out of the prediction",),
        ),
        ("single.yaml", 1, "ddp", "fp16", ()),  # a bare NO is false in YAML
    ],
)
def test_launch_configs(
    name: str, gpus: int, sharding: str, precision: str | None, notes: tuple[str, ...]
) -> None:
    found = launch_of(name, CONFIGS / "accelerate", "config.yaml")
    assert (found.gpus, found.sharding, found.precision, found.notes) == (
        gpus,
        sharding,
        precision,
        notes,
    )


def test_packaged_launch_configs() -> None:
    assert {name: (found.gpus, found.sharding) for name, found in PACKAGED.items()} == {
        "single_gpu": (1, "ddp"),
        "multi_gpu": (8, "ddp"),
        "fsdp1": (8, "fsdp"),
        "fsdp2": (8, "fsdp"),
        "zero1": (8, "zero-1"),
        "zero2": (8, "zero-2"),
        "zero3": (8, "zero-3"),
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"distributed_type": "TPU"}, "'distributed_type' is TPU; known here: no, multi_gpu"),
        ({"distributed_type": "FSDP", "fsdp_config": 1}, "'fsdp_config' is 1; write a mapping"),
        ({"mixed_precision": "fp8"}, "'mixed_precision' is fp8; known here: no, bf16, fp16"),
    ],
)
def test_launch_configs_are_refused_by_their_key(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"launch.yaml: {message}"):
        launch(values, Path(), "launch.yaml")


@pytest.mark.parametrize("name", ["fsdp2.yaml", "zero2.yaml", "single.yaml"])
def test_a_launch_config_alone_names_no_model(name: str) -> None:
    with pytest.raises(UsageError, match=r"accelerate's launch config, which names no model; pass"):
        read(f"accelerate/{name}")
