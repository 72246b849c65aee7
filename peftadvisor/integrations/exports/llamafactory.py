"""LLaMA-Factory: the YAML that ``llamafactory-cli train`` reads. Read in llamafactory 0.9.5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.header import header
from peftadvisor.integrations.exports.lora import lora_of, whole
from peftadvisor.integrations.exports.schedule import OPTIMIZERS, trainer_arguments
from peftadvisor.integrations.exports.sharding import deepspeed
from peftadvisor.integrations.exports.value import (
    Difference,
    Export,
    Format,
    changed,
    loop_difference,
)
from peftadvisor.integrations.exports.yaml_text import told, yaml_text

TOOL = "llamafactory 0.9.5"
_LORA = ("lora", "lora-all", "qlora", "dora", "rslora", "lora-plus", "pissa")
_WHOLE = ("full", "galore", "apollo", "badam")
_ATTENTION = {"sdpa": "sdpa", "eager": "disabled", "flash_attention_2": "fa2"}
_PISSA_STEPS = {"pissa": -1, "pissa_niter_4": 4, "pissa_niter_16": 16}
_INFO = {
    False: '{"data": {"file_name": "data.jsonl", "columns": {"prompt": "text"}}}',
    True: '{"data": {"file_name": "data.jsonl", '
    '"columns": {"prompt": "prompt", "response": "completion"}}}',
}


def write(export: Export) -> str:
    """The config and what to do with it.

    Raises:
        UsageError: levers cannot be had together.
    """
    values = {
        "model_name_or_path": export.run.model.id,
        "stage": "sft" if export.completions else "pt",
        "do_train": True,
        **_method(export),
        **_quantization(export),
        **_data(export),
        **_memory(export),
        **trainer_arguments(export, "warmup_ratio"),
        "optim": OPTIMIZERS[export.training.optimizer],
        **_sharding(export),
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": "output",
    }
    launch = "FORCE_TORCHRUN=1 " if export.run.gpus > 1 else ""
    start = [
        f"{launch}llamafactory-cli train config.yaml     (with data.jsonl and dataset_info.json)",
        f"dataset_info.json is {_INFO[export.completions]}",
    ]
    return yaml_text(header(export, TOOL, start, _differences(export)), told(values))


def _method(export: Export) -> dict[str, Any]:
    method = export.run.method.name
    return _METHODS[method](export) if method in _METHODS else _lora(export)


def _lora(export: Export) -> dict[str, Any]:
    lora, settings, method = lora_of(export), export.settings, export.run.method.name
    found = {
        "finetuning_type": "lora",
        "lora_rank": lora.rank,
        "lora_alpha": whole(lora, "llamafactory"),
        "lora_dropout": float(lora.dropout),
        "lora_target": _named(export, lora.names),
        "use_dora": True if lora.dora else None,
        "use_rslora": True if lora.rslora else None,
    }
    if method == "lora-plus":
        found["loraplus_lr_ratio"] = float(settings["lr_ratio"])
    if method == "pissa":
        found |= {"pissa_init": True, "pissa_iter": _PISSA_STEPS[settings["init"]]}
    return found


def _named(export: Export, names: tuple[str, ...] | None) -> str:
    if names is None:
        return "all"
    if not names:
        raise UsageError(
            f"llamafactory takes names of layers, not the pattern that {export.run.method.name} "
            "has; name them by --target-modules, or use peft"
        )
    return ",".join(names)


def _oft(export: Export) -> dict[str, Any]:
    from peftadvisor.integrations.exports.modules import attachment

    fields = dict(attachment(export).fields)
    targets = fields["target_modules"]
    return {
        "finetuning_type": "oft",
        "oft_rank": fields.get("r", 0),
        "oft_block_size": fields["oft_block_size"],
        "oft_target": _named(export, () if isinstance(targets, str) else tuple(targets)),
    }


def _low_rank(name: str, more: Mapping[str, Any]) -> Callable[[Export], dict[str, Any]]:
    def values(export: Export) -> dict[str, Any]:
        settings = export.settings
        return {
            "finetuning_type": "full",
            f"use_{name}": True,
            f"{name}_target": "all",
            f"{name}_rank": settings["rank"],
            f"{name}_update_interval": settings["gap"],
            f"{name}_scale": float(settings["scale"]),
            f"{name}_layerwise": False,
            **more,
        }

    return values


def _badam(export: Export) -> dict[str, Any]:
    return {
        "finetuning_type": "full",
        "use_badam": True,
        "badam_mode": "layer",
        "badam_switch_mode": "ascending",
        "badam_switch_interval": export.settings["interval"],
    }


_METHODS: Mapping[str, Callable[[Export], dict[str, Any]]] = {
    "full": lambda _: {"finetuning_type": "full"},
    "galore": _low_rank("galore", {}),
    "apollo": _low_rank("apollo", {"apollo_proj": "random", "apollo_scale_type": "channel"}),
    "badam": _badam,
    "oft": _oft,
}


def _quantization(export: Export) -> dict[str, Any]:
    t = export.training
    if t.quantization == "none":
        return {}
    four = t.quantization != "int8"
    return {
        "quantization_method": "bnb",
        "quantization_bit": 4 if four else 8,
        "quantization_type": "nf4" if four else None,
        "double_quantization": t.quantization == "nf4-dq" if four else None,
        "upcast_layernorm": t.kbit_preparation == "trl",
    }


def _data(export: Export) -> dict[str, Any]:
    t = export.training
    return {
        "dataset": "data",
        "dataset_dir": ".",
        "cutoff_len": t.seq_len,
        "packing": not t.padded,
        "per_device_train_batch_size": t.micro_batch_size,
        "gradient_accumulation_steps": t.gradient_accumulation_steps,
    }


def _memory(export: Export) -> dict[str, Any]:
    t = export.training
    checkpoints = t.gradient_checkpointing != "none"
    return {
        **_dtypes(export),
        "flash_attn": _ATTENTION[t.attention],
        "disable_gradient_checkpointing": not checkpoints,
        "use_reentrant_gc": t.gradient_checkpointing == "reentrant" if checkpoints else None,
        "enable_liger_kernel": True if t.loss == "fused-linear" else None,
    }


def _trains_weights(export: Export) -> bool:
    return export.run.method.name in _WHOLE


def _dtypes(export: Export) -> dict[str, Any]:
    """Weights have the dtype of autocast, trained ones fp32, unless all of it is pure bf16."""
    t = export.training
    if _trains_weights(export):
        if t.dtype == "fp16":
            raise UsageError("llamafactory trains no weights in fp16; estimate with --dtype bf16")
        pure = t.dtype == "bf16" and not t.amp
        return {"pure_bf16": True} if pure else {"bf16": t.amp}
    if t.dtype == "fp32":
        raise UsageError(
            "llamafactory loads frozen weights in 16 bits; use peft or trl, or estimate with "
            "--dtype bf16"
        )
    return {t.dtype: True}


def _sharding(export: Export) -> dict[str, Any]:
    run = export.run
    if run.gpus == 1 or run.sharding == "ddp":
        return {}
    return {"deepspeed": deepspeed(run.sharding)}


def _differences(export: Export) -> list[Difference]:
    t = export.training
    found = loop_difference(t, "llamafactory")
    if not _trains_weights(export) and not t.amp:
        found.append(changed("forward and loss run under autocast", amp=True))
    if _trains_weights(export) and t.dtype == "bf16" and t.amp:
        found.append(changed("under autocast, trained weights are fp32", dtype="fp32"))
    if t.quantization != "none" and t.kbit_preparation == "peft":
        text = "norms, embeddings and head of a quantized base stay in 16 bits"
        found.append(changed(text, kbit_preparation="none"))
    if t.padded:
        found.append(Difference("batches are padded to their longest example, not to full length"))
    if t.loss == "fused-linear":
        found.append(Difference("Liger's kernels for norms, rotations and SwiGLU are on as well"))
    if export.run.method.name == "badam":
        found.append(Difference("its optimizer keeps an fp32 copy of the layer that is trained"))
    if t.transformers != "5":
        found.append(Difference("it runs with transformers 4.55 to 5.6"))
    return found


FORMAT = Format(
    name="llamafactory",
    write=write,
    methods=frozenset({*_METHODS, *_LORA}),
    offers={
        "quantization": ("none", "nf4", "nf4-dq", "int8"),
        "optimizer": tuple(OPTIMIZERS),
        "loss": ("torch", "fused-linear"),
        "sharding": ("none", "ddp", "zero-1", "zero-2", "zero-3"),
    },
)
