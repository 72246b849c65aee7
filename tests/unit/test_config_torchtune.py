"""torchtune's configs: the run that each describes, what is named, what is refused, and changes."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.torchtune import TOOL
from peftadvisor.integrations.configs.torchtune_keys import LEFT_OUT
from peftadvisor.integrations.configs.torchtune_models import builders, built
from peftadvisor.integrations.exports import FORMATS, Export
from peftadvisor.integrations.exports.torchtune import _differences
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

FILES = sorted(path.name for path in (CONFIGS / "torchtune").glob("*.yaml"))
ADAPTERS = "adapters are in the dtype of the base, and are predicted in fp32"
CHUNKS = "the loss in chunks is predicted as a fused one, which needs as much memory"
LENGTH = "the file limits no sample's length; 512 tokens are assumed"
MINIMAL: dict[str, Any] = {
    "model": {
        "_component_": "torchtune.models.llama3_2.lora_llama3_2_1b",
        "lora_attn_modules": ["q_proj", "v_proj"],
    },
    "tokenizer": {"_component_": "torchtune.models.llama3.llama3_tokenizer", "max_seq_len": 256},
    "dataset": {"_component_": "torchtune.datasets.alpaca_dataset"},
    "optimizer": {"_component_": "torch.optim.AdamW", "lr": 1e-4},
    "loss": {"_component_": "torch.nn.CrossEntropyLoss"},
    "batch_size": 1,
    "epochs": 1,
    "gradient_accumulation_steps": 1,
}


def read(**values: Any) -> Any:
    """The minimal config with values put in; mappings are laid over those that are there."""
    merged = copy.deepcopy(MINIMAL)
    for key, value in values.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = {**old, **value} if both else value  # type: ignore[dict-item]
    return TOOL.read(of_values(merged, "config.yaml"))


# --- the corpus -----------------------------------------------------------------------------------

METHODS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dora_8b.yaml": (
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "dora",
        {
            "rank": 8,
            "alpha": 16,
            "dropout": 0.0,
            "target_modules": ("q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"),
        },
    ),
    "full_7b.yaml": ("Qwen/Qwen2.5-7B-Instruct", "full", {}),
    "lora_8b.yaml": (
        "meta-llama/Llama-3.1-8B-Instruct",
        "lora",
        {
            "rank": 16,
            "alpha": 16,
            "dropout": 0.0,
            "target_modules": ("q_proj", "v_proj", "o_proj"),
        },
    ),
    "misspelt.yaml": (
        "google/gemma-2-2b",
        "lora",
        {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": ("q_proj", "v_proj")},
    ),
    "phi3_lora.yaml": (
        "microsoft/Phi-3-mini-4k-instruct",
        "lora",
        {
            "rank": 8,
            "alpha": 16,
            "dropout": 0.0,
            "target_modules": ("qkv_proj", "gate_up_proj", "down_proj"),
        },
    ),
    "qlora_1b.yaml": (
        "meta-llama/Llama-3.2-1B",
        "qlora",
        {"rank": 64, "alpha": 128, "dropout": 0.1},
    ),
}

TRAINING: dict[str, dict[str, Any]] = {
    "dora_8b.yaml": {
        "gradient_accumulation_steps": 16,
        "padded": True,
        "quantization": "nf4-dq",
        "max_grad_norm": 0.0,
        "kbit_preparation": "none",
        "loss": "fused",
    },
    "full_7b.yaml": {
        "gradient_accumulation_steps": 4,
        "padded": True,
        "dtype": "fp32",
        "optimizer": "adamw-loop",
        "gradient_checkpointing": "non-reentrant",
        "max_grad_norm": 1e18,
        "loss": "fused",
    },
    "lora_8b.yaml": {
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "seq_len": 2048,
        "optimizer": "adamw-fused",
        "gradient_checkpointing": "non-reentrant",
        "max_grad_norm": 0.0,
        "loss": "fused",
    },
    "misspelt.yaml": {"padded": True, "optimizer": "adamw-8bit", "max_grad_norm": 0.0},
    "phi3_lora.yaml": {
        "micro_batch_size": 2,
        "seq_len": 4096,
        "dtype": "fp32",
        "optimizer": "sgd",
        "max_grad_norm": 0.0,
    },
    "qlora_1b.yaml": {
        "micro_batch_size": 4,
        "seq_len": 1024,
        "padded": True,
        "quantization": "nf4-dq",
        "optimizer": "paged-adamw-8bit",
        "kbit_preparation": "none",
    },
}
"""What differs from our defaults; logits are always let go of before backward."""

REST: dict[str, tuple[Job, float, str]] = {
    "dora_8b.yaml": (Job(task="summarization", epochs=1.0), 3e-4, "fsdp"),
    "full_7b.yaml": (Job(task="instruction", epochs=3.0), 1e-5, "zero-2"),
    "lora_8b.yaml": (Job(task="instruction", epochs=1.0), 3e-4, "fsdp"),
    "misspelt.yaml": (Job(task="instruction", epochs=1.0), 1e-4, "fsdp"),
    "phi3_lora.yaml": (Job(task="instruction", epochs=1.0), 0.1, "fsdp"),
    "qlora_1b.yaml": (Job(task="pretraining", steps=100), 1e-4, "fsdp"),  # 2 epochs of 50
}

UNKNOWN: dict[str, tuple[str, ...]] = {
    "misspelt.yaml": (
        "model.lora_ranks",
        "tokenizer.max_seq_length",
        "dataset.pack",
        "gradient_accumulation",
    )
}

NOTES: dict[str, tuple[str, ...]] = {
    "dora_8b.yaml": (LEFT_OUT["compile"], CHUNKS, ADAPTERS),
    "full_7b.yaml": (
        LEFT_OUT["enable_activation_offloading"],
        LEFT_OUT["fsdp_cpu_offload"],
        LENGTH,
        CHUNKS,
    ),
    "lora_8b.yaml": (CHUNKS, ADAPTERS),
    "misspelt.yaml": (LENGTH, ADAPTERS),
    "phi3_lora.yaml": (
        "LoRA on query, key and value is predicted on the projection that joins them",
        LEFT_OUT["optimizer.momentum"],
    ),
    "qlora_1b.yaml": (ADAPTERS,),
}


def test_the_corpus_is_covered() -> None:
    assert FILES == list(METHODS) == list(TRAINING) == list(REST) == list(NOTES)


@pytest.mark.parametrize("name", FILES)
def test_what_a_config_describes(name: str) -> None:
    found = TOOL.read(file_of("torchtune", name))
    assert (found.tool, found.version, found.gpus) == ("torchtune", "0.6.1", None)
    method = (found.model, found.method.name, dict(found.method.settings))
    assert method == METHODS[name]
    assert changed_settings(found.training) == TRAINING[name] | {"loop": "trainer"}
    assert (found.job, found.learning_rate, found.sharding) == REST[name]
    assert found.notes == NOTES[name]
    assert found.unknown == UNKNOWN.get(name, ())
    assert untraced(found) == set()
    find_method(found.method.name).settings(found.method)


@pytest.mark.parametrize("name", FILES)
def test_changes_are_read_back(name: str) -> None:
    found = lever_outcomes(TOOL, file_of("torchtune", name))
    without = {
        ("gradient_checkpointing", "reentrant"),
        ("optimizer", "adafactor"),
        *(("quantization", kind) for kind in ("nf4", "int8", "gptq")),
        ("loss", "fused-linear"),
    }
    if name == "full_7b.yaml":
        without |= {("quantization", "none"), ("quantization", "nf4-dq")}
    assert {lever for lever, outcome in found.items() if outcome == "no"} == without
    assert {outcome for lever, outcome in found.items() if lever not in without} == {"yes"}


def test_several_changes_at_once() -> None:
    file = file_of("torchtune", "lora_8b.yaml")
    change: dict[str, Any] = {"quantization": "nf4-dq", "micro_batch_size": 1, "optimizer": "sgd"}
    edits = TOOL.edits(file, TOOL.read(file), change)
    assert edits is not None
    after = TOOL.read(changed(file, edits)).training
    assert replace(TOOL.read(file).training, **change, kbit_preparation="none") == after
    assert TOOL.edits(file, TOOL.read(file), {"seq_len": 256, "amp": True}) is None


def test_another_optimizer_keeps_its_rate_and_no_switch_of_the_old_one() -> None:
    file = file_of("torchtune", "lora_8b.yaml")
    edits = TOOL.edits(file, TOOL.read(file), {"optimizer": "adamw-8bit"})
    assert edits is not None
    [edit] = edits
    assert (edit.path, edit.value) == (
        ("optimizer",),
        {"_component_": "bitsandbytes.optim.AdamW8bit", "lr": "3e-4", "weight_decay": 0.01},
    )


def test_offload_goes_with_checkpointing() -> None:
    file = file_of("torchtune", "full_7b.yaml")
    edits = TOOL.edits(file, TOOL.read(file), {"gradient_checkpointing": "none"})
    assert {edit.path[0]: edit.value for edit in edits or ()} == {
        "enable_activation_checkpointing": False,
        "enable_activation_offloading": False,
    }


# --- components -----------------------------------------------------------------------------------


def test_every_builder_that_can_be_exported_is_read() -> None:
    assert len(builders()) > 25
    for plain, ids in builders().items():
        module, name = plain.split(".")[2:]
        for start in ("", "lora_"):
            assert built(f"torchtune.models.{module}.{start}{name}") == (module, plain, start)
        assert ids


@pytest.mark.parametrize(
    "component",
    [
        *("torchtune.models.llama9.llama9_8b", "torchtune.models.qwen2.qlora_qwen2_7b"),
        *("torchtune.models.llama3_2_vision.lora_llama3_2_vision_11b", "llama3_2_1b", ""),
        *("torchtune.models.llama3_2.dora_llama3_2_1b", "os.system", "torchtune.models.llama3_2"),
    ],
)
def test_unknown_components_are_named(component: str) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml: 'model") as raised:
        read(model={"_component_": component})
    assert component in str(raised.value)


@pytest.mark.parametrize(
    ("folder", "model"),
    [
        ("/m/Llama-3.2-1B-Instruct/", "meta-llama/Llama-3.2-1B-Instruct"),
        ("Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        ("checkpoints", "meta-llama/Llama-3.2-1B"),
        ("", "meta-llama/Llama-3.2-1B"),
    ],
)
def test_the_folder_tells_models_of_one_shape_apart(folder: str, model: str) -> None:
    assert read(checkpointer={"checkpoint_dir": folder}).model == model


@pytest.mark.parametrize(
    ("modules", "mlp", "targets"),
    [
        (["q_proj", "k_proj", "v_proj", "output_proj"], True, None),
        (["output_proj"], False, ("o_proj",)),
        ("q_proj,k_proj", False, ("q_proj", "k_proj")),
        (["q_proj"], "true", ("q_proj", "gate_proj", "up_proj", "down_proj")),
    ],
)
def test_adapted_layers(modules: Any, mlp: Any, targets: tuple[str, ...] | None) -> None:
    found = read(model={"lora_attn_modules": modules, "apply_lora_to_mlp": mlp}).method
    assert found.name == ("lora-all" if targets is None else "lora")
    assert dict(found.settings).get("target_modules") == targets


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ({}, "adamw"),
        ({"fused": True}, "adamw-fused"),
        ({"fused": False, "foreach": True}, "adamw"),
        ({"foreach": "False"}, "adamw-loop"),
        ({"_component_": "bitsandbytes.optim.AdamW8bit"}, "adamw-8bit"),
        ({"_component_": "bitsandbytes.optim.PagedAdamW8bit"}, "paged-adamw-8bit"),
        ({"_component_": "torch.optim.SGD", "fused": True}, "sgd"),
    ],
)
def test_optimizers(optimizer: dict[str, Any], name: str) -> None:
    assert read(optimizer=optimizer).training.optimizer == name


def test_references_are_followed_and_count_as_known() -> None:
    found = read(
        size=4,
        batch_size="${size}",
        tokenizer={"max_seq_len": "${limits.tokens}"},
        limits={"tokens": 128},
    )
    assert (found.training.micro_batch_size, found.training.seq_len) == (4, 128)
    assert found.unknown == ()


def test_defaults_of_the_recipes() -> None:
    training = read().training
    assert (training.dtype, training.amp, training.attention) == ("fp32", False, "sdpa")
    assert (training.max_grad_norm, training.padded) == (0.0, True)
    assert (training.gradient_checkpointing, training.loss) == ("none", "torch")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": None}, "config.yaml lacks 'model', which torchtune needs; add it"),
        ({"tokenizer": None}, "lacks 'tokenizer'"),
        ({"batch_size": None}, "lacks 'batch_size'"),
        ({"epochs": None}, "lacks 'epochs'"),
        ({"loss": {"_component_": None}}, "'loss' names no '_component_'"),
        ({"optimizer": {"lr": None}}, "lacks 'optimizer.lr'"),
        ({"model": {"lora_attn_modules": None}}, "lacks 'model.lora_attn_modules'"),
        ({"model": {"lora_attn_modules": ["o_proj"]}}, "known here: q_proj, k_proj, v_proj, out"),
        ({"model": {"lora_rank": 0}}, "'model.lora_rank' is 0; write a whole number"),
        ({"model": {"use_dora": "perhaps"}}, "'model.use_dora' is perhaps; write true or false"),
        ({"batch_size": "big"}, "'batch_size' is big; write a number"),
        ({"dtype": "fp16"}, "'dtype' is fp16; known here: bf16, fp32"),
        ({"clip_grad_norm": "much"}, "'clip_grad_norm' is much; write a number"),
        ({"optimizer": {"_component_": "bitsandbytes.optim.PagedAdamW"}}, "known here: torch.opti"),
        ({"loss": {"_component_": "my.Loss"}}, "'loss._component_' is my.Loss; known here"),
        ({"loss": {"_component_": "torchtune.rlhf.loss.DPOLoss"}}, "learns from pairs"),
        (
            {"dataset": {"_component_": "torchtune.datasets.stack_exchange_paired_dataset"}},
            "learns from pairs",
        ),
        ({"teacher_model": {"_component_": "a"}}, "'teacher_model' distils from a second model"),
        ({"ref_checkpointer": {"a": 1}}, "'ref_checkpointer' learns from preferences"),
        (
            {"dataset": {"packed": True}, "tokenizer": {"max_seq_len": None}},
            "packs samples but has no 'tokenizer.max_seq_len'; set it",
        ),
        ({"dataset": {"packed": "perhaps"}}, "'dataset.packed' is perhaps; write true or false"),
        ({"max_steps_per_epoch": -1}, "'max_steps_per_epoch' is -1; write a number of 0 or more"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(**values)
    assert message in str(raised.value)
    assert str(raised.value).startswith("config.yaml")


@pytest.mark.parametrize("value", [[], {}, [1], {"a": 1}, "", "x", -1, 1e30, True, "\x1b[0m"])
@pytest.mark.parametrize("key", sorted({*MINIMAL, "checkpointer", "dtype", "compile"}))
def test_odd_values_end_in_one_line(key: str, value: Any) -> None:
    said = ""
    try:
        TOOL.read(of_values(MINIMAL | {key: value}, "config.yaml"))
    except UsageError as error:
        said = str(error)
    assert said == "" or said.isprintable()


@pytest.mark.parametrize(
    "key", ["batch_sizes", "enable_activation_checkpoint", "gradient_accumulation", "clip_norm"]
)
def test_misspelt_keys_are_named(key: str) -> None:
    assert read(**{key: 1}).unknown == (key,)


def test_marks() -> None:
    assert TOOL.marks(MINIMAL) == 3
    assert TOOL.marks({"base_model": "m", "datasets": []}) == 0


# --- exports, read back ---------------------------------------------------------------------------

ADVICE = advice(learning_rate=2e-4, warmup_ratio=0.03, epochs=3)
LLAMA = {"model": "meta-llama/Llama-3.1-8B"}
RUNS = [
    run_of("full", optimizer="adamw-fused", dtype="fp32"),
    run_of("lora", micro_batch_size=4, gradient_checkpointing="non-reentrant"),
    run_of("lora-all", seq_len=2048, optimizer="adamw-loop", padded=True),
    run_of("qlora", quantization="nf4-dq", optimizer="paged-adamw-8bit"),
    run_of("lora", quantization="nf4-dq", max_grad_norm=0.0, optimizer="adamw-8bit"),
    run_of("dora", gradient_accumulation_steps=8, optimizer="sgd", loss="fused"),
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.method.name)
def test_exports_are_read_back(run: RunSpec) -> None:
    export = Export(estimate=estimate_of(run), advised=ADVICE, job=Job(), made=date(2026, 11, 28))
    found = TOOL.read(of_values(yaml.safe_load(FORMATS["torchtune"].write(export))))
    require_read_back(export, found, _differences(export))
