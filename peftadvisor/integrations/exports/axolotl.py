"""Axolotl: the YAML that ``axolotl train`` reads. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports.header import header
from peftadvisor.integrations.exports.lora import lora_of, whole
from peftadvisor.integrations.exports.schedule import (
    OPTIMIZERS,
    REENTRANT,
    duration,
    max_grad_norm,
    rate,
    schedule,
)
from peftadvisor.integrations.exports.sharding import deepspeed
from peftadvisor.integrations.exports.value import (
    Difference,
    Export,
    Format,
    changed,
    loop_difference,
)
from peftadvisor.integrations.exports.yaml_text import told, yaml_text

TOOL = "axolotl 0.19"
_STARTS = {"pissa": "init", "olora": None}
_LORA = ("lora", "lora-all", "qlora", "dora", "rslora", "lora-plus", "pissa", "olora")
_PURE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_LOSSES: Mapping[str, dict[str, Any]] = {
    "torch": {},
    "fused": {"liger_cross_entropy": True},
    "fused-linear": {"liger_fused_linear_cross_entropy": True},
}


def write(export: Export) -> str:
    """The config and what to do with it.

    Raises:
        UsageError: nobody advised a learning rate, or levers cannot be had together.
    """
    values = {
        "base_model": export.run.model.id,
        **_method(export),
        **_data(export),
        **_batches(export),
        **_memory(export),
        **_learning(export),
        **_sharding(export),
        "logging_steps": 10,
        "output_dir": "output",
    }
    start = [
        "axolotl train config.yaml     (data.jsonl beside it; each line is "
        + ('{"prompt": "...", "completion": "..."})' if export.completions else '{"text": "..."})')
    ]
    return yaml_text(header(export, TOOL, start, _differences(export)), told(values))


def _method(export: Export) -> dict[str, Any]:
    t, method, settings = export.training, export.run.method.name, export.settings
    if method == "full":
        return {}
    lora = lora_of(export)
    start = settings.get("init", method) if method in _STARTS else None
    return {
        "adapter": "qlora" if t.quantization in ("nf4", "nf4-dq") else "lora",
        "load_in_4bit": True if t.quantization in ("nf4", "nf4-dq") else None,
        "load_in_8bit": True if t.quantization == "int8" else None,
        "bnb_config_kwargs": (
            {"bnb_4bit_use_double_quant": False} if t.quantization == "nf4" else None
        ),
        "lora_r": lora.rank,
        "lora_alpha": whole(lora, "axolotl"),
        "lora_dropout": float(lora.dropout),
        "lora_target_linear": True if lora.names is None else None,
        "lora_target_modules": None if lora.names is None else lora.targets,
        "peft_use_dora": True if lora.dora else None,
        "peft_use_rslora": True if lora.rslora else None,
        "peft_init_lora_weights": start,
        "loraplus_lr_ratio": settings["lr_ratio"] if method == "lora-plus" else None,
        # Fused kernels that axolotl turns on by itself, and that were not estimated.
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
        "lora_embedding_kernel": False,
    }


def _data(export: Export) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "completion", "field": "text"}
    pairs: dict[str, Any] = {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    }
    kind = pairs if export.completions else text
    return {
        "datasets": [{"path": "data.jsonl", "ds_type": "json", **kind}],
        "val_set_size": 0.0,
        "excess_length_strategy": "truncate",
    }


def _batches(export: Export) -> dict[str, Any]:
    t = export.training
    return {
        "sequence_len": t.seq_len,
        "sample_packing": not t.padded,
        "pad_to_sequence_len": True,
        "micro_batch_size": t.micro_batch_size,
        "gradient_accumulation_steps": t.gradient_accumulation_steps,
    }


def _memory(export: Export) -> dict[str, Any]:
    t = export.training
    reentrant = REENTRANT[t.gradient_checkpointing]
    return {
        **_dtypes(export),
        "tf32": False,
        "attn_implementation": t.attention,
        "gradient_checkpointing": reentrant is not None,
        "gradient_checkpointing_kwargs": (
            None if reentrant is None else {"use_reentrant": reentrant}
        ),
        "plugins": (None if t.loss == "torch" else ["axolotl.integrations.liger.LigerPlugin"]),
        **_LOSSES[t.loss],
    }


def _dtypes(export: Export) -> dict[str, Any]:
    t = export.training
    if t.amp and t.dtype == "fp32":
        raise UsageError(
            "axolotl loads weights in the dtype of autocast, not in fp32; use peft or trl, or "
            "estimate with --dtype bf16 --amp"
        )
    if t.amp and t.dtype == "fp16" and export.run.method.name == "full":
        raise UsageError("gradients of fp16 weights cannot be scaled; estimate with --dtype bf16")
    if t.quantization == "int8" and t.dtype == "fp32":
        raise UsageError("axolotl has an int8 base compute in 16 bits; estimate with --dtype bf16")
    if t.amp:
        return {"bf16": t.dtype == "bf16", "fp16": t.dtype == "fp16"}
    return {"bf16": False, "fp16": False, _PURE[t.dtype]: True}


def _learning(export: Export) -> dict[str, Any]:
    lasts, learning_rate = duration(export), rate(export, "learning_rate")
    if learning_rate is None:
        raise UsageError("axolotl needs a learning rate, and none was advised; use peft or trl")
    return {
        "num_epochs": lasts.get("epochs"),
        "max_steps": lasts.get("steps"),
        "optimizer": OPTIMIZERS[export.training.optimizer],
        "learning_rate": learning_rate,
        "lr_scheduler": schedule(export),
        "warmup_ratio": rate(export, "warmup_ratio"),
        "weight_decay": rate(export, "weight_decay"),
        "max_grad_norm": max_grad_norm(export),
    }


def _sharding(export: Export) -> dict[str, Any]:
    run = export.run
    if run.gpus == 1 or run.sharding == "ddp":
        return {}
    if run.sharding != "fsdp":
        return {"deepspeed": deepspeed(run.sharding)}
    policy = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
    return {"fsdp_version": 2, "fsdp_config": {**policy, "state_dict_type": "FULL_STATE_DICT"}}


def _differences(export: Export) -> list[Difference]:
    t = export.training
    found = loop_difference(t, "axolotl")
    if not t.padded and t.attention != "flash_attention_2":
        found.append(
            changed("a mask keeps packed documents apart; the estimate has none", padded=True)
        )
    if t.quantization != "none" and t.kbit_preparation != "none":
        text = "norms, embeddings and head of a quantized base go back to 16 bits"
        found.append(changed(text, kbit_preparation="none"))
    if (
        export.run.method.name == "full"
        and t.dtype != "fp32"
        and t.attention != "flash_attention_2"
    ):
        found.append(Difference("norms, embeddings and head are kept in fp32"))
    if t.dtype == "bf16" and not t.amp:
        found.append(changed("axolotl trains bf16 weights under autocast", amp=True))
    if t.transformers != "5":
        found.append(changed("this axolotl runs transformers 5", transformers="5"))
    return found


FORMAT = Format(
    name="axolotl",
    write=write,
    methods=frozenset({"full", *_LORA}),
    offers={
        "quantization": ("none", "nf4", "nf4-dq", "int8"),
        "optimizer": tuple(OPTIMIZERS),
    },
)
