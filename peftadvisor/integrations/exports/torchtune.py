"""torchtune: the YAML that ``tune run`` reads. Read in torchtune 0.6.1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.header import header
from peftadvisor.integrations.exports.lora import Lora, lora_of
from peftadvisor.integrations.exports.schedule import (
    advised_schedule,
    duration,
    max_grad_norm,
    optimizer_steps,
    rate,
)
from peftadvisor.integrations.exports.torchtune_models import Family, find_family
from peftadvisor.integrations.exports.value import (
    Difference,
    Export,
    Format,
    changed,
    loop_difference,
)
from peftadvisor.integrations.exports.yaml_text import told, yaml_text

TOOL = "torchtune 0.6.1"
FOLDER = "model"
_LORA = ("lora", "lora-all", "qlora", "dora")
ATTENTION = {
    "q_proj": ("q_proj",),
    "k_proj": ("k_proj",),
    "v_proj": ("v_proj",),
    "o_proj": ("output_proj",),
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
}
"""transformers' names of attention's projections, and torchtune's."""
_FEED_FORWARD = (
    frozenset({"gate_proj", "up_proj", "down_proj"}),
    frozenset({"gate_up_proj", "down_proj"}),
)
OPTIMIZERS: Mapping[str, dict[str, Any]] = {
    "adamw": {"_component_": "torch.optim.AdamW", "foreach": True},
    "adamw-loop": {"_component_": "torch.optim.AdamW", "foreach": False},
    "adamw-fused": {"_component_": "torch.optim.AdamW", "fused": True},
    "adamw-8bit": {"_component_": "bitsandbytes.optim.AdamW8bit"},
    "paged-adamw-8bit": {"_component_": "bitsandbytes.optim.PagedAdamW8bit"},
    "sgd": {"_component_": "torch.optim.SGD"},
}
LOSSES = {
    "torch": "torch.nn.CrossEntropyLoss",
    "fused": "torchtune.modules.loss.CEWithChunkedOutputLoss",
}
"""Losses by name. Chunks of the logits keep their log-softmax, as one fused loss does."""
_FILE_BYTES = 5_000_000_000
"""The most that Hub checkpoints keep in one file, by default."""


def write(export: Export) -> str:
    """The config and what to do with it.

    Raises:
        UsageError: torchtune has no builder for the model, or not with these layers or levers.
    """
    family, size = _family(export)
    _require_pure(export)
    values = {
        "output_dir": "output",
        "model": _model(export, family, size),
        "tokenizer": _tokenizer(export, family),
        "checkpointer": _checkpointer(export, family),
        "resume_from_checkpoint": False,
        "dataset": _dataset(export),
        "seed": 0,
        "shuffle": True,
        "batch_size": export.training.micro_batch_size,
        **_learning(export),
        **_memory(export),
        "metric_logger": {
            "_component_": "torchtune.training.metric_logging.DiskLogger",
            "log_dir": "${output_dir}/logs",
        },
        "log_every_n_steps": 10,
        "log_peak_memory_stats": True,
        "profiler": {"_component_": "torchtune.training.setup_torch_profiler", "enabled": False},
    }
    head = header(export, TOOL, _start(export), _differences(export))
    return yaml_text(head, values)


def _family(export: Export) -> tuple[Family, str]:
    found = find_family(export.run.model.id)
    if found is None:
        raise UsageError(
            f"torchtune has no builder for {export.run.model.id}; use peft, axolotl, llamafactory "
            "or trl"
        )
    if export.run.method.name == "dora" and not found[0].dora:
        raise UsageError(f"torchtune has no DoRA for {export.run.model.id}; use peft or axolotl")
    return found


def _require_pure(export: Export) -> None:
    if export.training.amp:
        raise UsageError("torchtune has no autocast; use peft or trl, or estimate without --amp")


def _start(export: Export) -> list[str]:
    kind = "full" if export.run.method.name == "full" else "lora"
    gpus = export.run.gpus
    where = "single_device" if gpus == 1 else "distributed"
    many = f"--nproc_per_node {gpus} " if gpus > 1 else ""
    lines = '{"prompt": "...", "completion": "..."}' if export.completions else '{"text": "..."}'
    model = "".join(c for c in export.run.model.id if c.isalnum() or c in "/-_.")
    return [
        f"tune download {model} --output-dir {FOLDER}     (checkpoint_files: its weights)",
        f"tune run {many}{kind}_finetune_{where} --config config.yaml",
        f"each line of data.jsonl is {lines}",
    ]


def _model(export: Export, family: Family, size: str) -> dict[str, Any]:
    if export.run.method.name == "full":
        return {"_component_": family.model(size, lora=False)}
    lora = lora_of(export)
    attention, feed_forward = _layers(export, lora)
    found = {
        "_component_": family.model(size, lora=True),
        "lora_attn_modules": attention,
        "apply_lora_to_mlp": feed_forward,
        "lora_rank": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": float(lora.dropout),
    }
    if lora.dora:
        found["use_dora"] = True
    if export.training.quantization != "none":
        found["quantize_base"] = True
    return found


def _layers(export: Export, lora: Lora) -> tuple[list[str], bool]:
    """Names in torchtune of the adapted projections, and whether all of feed-forward is adapted.

    Raises:
        UsageError: other layers are named, or feed-forward in part.
    """
    if lora.names is None:
        return ["q_proj", "k_proj", "v_proj", "output_proj"], True
    rest = frozenset(lora.names) - set(ATTENTION)
    if not lora.names or (rest and rest not in _FEED_FORWARD):
        raise UsageError(
            "torchtune adapts q_proj, k_proj, v_proj, o_proj and feed-forward as a whole, not "
            f"{', '.join(sorted(rest)) or 'a pattern'}; use peft or trl"
        )
    named = [new for old in lora.names for new in ATTENTION.get(old, ())]
    if not named:
        raise UsageError("torchtune adapts attention at least; use peft or trl")
    return named, bool(rest)


def _tokenizer(export: Export, family: Family) -> dict[str, Any]:
    return {
        "_component_": f"torchtune.models.{family.tokenizer}",
        **{name: f"{FOLDER}/{file}" for name, file in family.files.items()},
        "max_seq_len": export.training.seq_len,
    }


def _checkpointer(export: Export, family: Family) -> dict[str, Any]:
    parameters = export.run.model.checkpoint_parameters or export.run.model.parameters or 0
    files = math.ceil(2 * parameters / _FILE_BYTES)
    names: Any = ["model.safetensors"]
    if files > 1:
        form = "model-{}-of-{}.safetensors"
        names = {"filename_format": form, "max_filename": f"{files:05d}"}
    return {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": FOLDER,
        "checkpoint_files": names,
        "recipe_checkpoint": None,
        "output_dir": "${output_dir}",
        "model_type": family.checkpoint,
    }


def _dataset(export: Export) -> dict[str, Any]:
    packed = not export.training.padded
    file = {"source": "json", "data_files": "data.jsonl", "split": "train", "packed": packed}
    if export.completions:
        columns = {"column_map": {"input": "prompt", "output": "completion"}}
        return {"_component_": "torchtune.datasets.instruct_dataset", **file, **columns}
    return {"_component_": "torchtune.datasets.text_completion_dataset", **file, "column": "text"}


def _learning(export: Export) -> dict[str, Any]:
    lasts, decay = duration(export), rate(export, "weight_decay")
    optimizer = {
        **OPTIMIZERS[export.training.optimizer],
        "lr": rate(export, "learning_rate"),
        "weight_decay": decay,
    }
    if optimizer["lr"] is None:
        raise UsageError("torchtune needs a learning rate, and none was advised; use peft or trl")
    return {
        "epochs": math.ceil(lasts.get("epochs", 1)),
        "max_steps_per_epoch": lasts.get("steps"),
        "gradient_accumulation_steps": export.training.gradient_accumulation_steps,
        "optimizer": told(optimizer),
        **({"optimizer_in_bwd": False} if export.run.method.name == "full" else {}),
        "clip_grad_norm": max_grad_norm(export) or None,
        "lr_scheduler": {
            "_component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
            "num_warmup_steps": _warmup_steps(export),
        },
        "loss": {"_component_": LOSSES[export.training.loss]},
    }


def _warmup_steps(export: Export) -> int:
    share, steps = rate(export, "warmup_ratio"), optimizer_steps(export)
    return 0 if share is None or steps is None else math.ceil(share * steps)


def _memory(export: Export) -> dict[str, Any]:
    t = export.training
    return {
        "device": "cuda",
        "dtype": t.dtype,
        "enable_activation_checkpointing": t.gradient_checkpointing != "none",
        "enable_activation_offloading": False,
        "compile": False,
    }


def _differences(export: Export) -> list[Difference]:
    t = export.training
    found = loop_difference(t, "torchtune")
    if t.dtype != "fp32" and export.run.method.name != "full":
        found.append(Difference("adapters have the dtype of the base, not fp32"))
    if t.loss == "torch":
        found.append(Difference("the head's output is widened to fp32 before the loss"))
    else:
        found.append(Difference("the loss is made in chunks of the logits, which hold as much"))
    if t.quantization != "none" and t.kbit_preparation != "none":
        text = "norms, embeddings and head of a quantized base stay in 16 bits"
        found.append(changed(text, kbit_preparation="none"))
    if t.padded:
        found.append(Difference("batches are padded to their longest example, not to full length"))
    else:
        found.append(Difference("a mask keeps packed documents apart"))
    return [*found, *_schedule_differences(export)]


def _schedule_differences(export: Export) -> list[Difference]:
    named = advised_schedule(export)
    found = []
    if named not in (None, "cosine"):
        found.append(Difference(f"the schedule is a cosine, not {named}: torchtune has no other"))
    if rate(export, "warmup_ratio") and optimizer_steps(export) is None:
        found.append(Difference("there is no warmup: its steps depend on the size of the job"))
    return found


FORMAT = Format(
    name="torchtune",
    write=write,
    liger=False,
    methods=frozenset({"full", *_LORA}),
    offers={
        "dtype": ("bf16", "fp32"),
        "quantization": ("none", "nf4-dq"),
        "optimizer": tuple(OPTIMIZERS),
        "attention": ("sdpa",),
        "gradient checkpointing": ("none", "non-reentrant"),
        "loss": tuple(LOSSES),
        "sharding": ("none", "fsdp"),
    },
)
