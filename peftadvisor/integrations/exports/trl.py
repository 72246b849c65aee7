"""TRL: the YAML that ``trl sft`` reads. Read in trl 1.16.0."""

from __future__ import annotations

from typing import Any

from peftadvisor.integrations.exports.header import header
from peftadvisor.integrations.exports.lora import lora_of, whole
from peftadvisor.integrations.exports.schedule import OPTIMIZERS, REENTRANT, trainer_arguments
from peftadvisor.integrations.exports.value import (
    Difference,
    Export,
    Format,
    changed,
    loop_difference,
)
from peftadvisor.integrations.exports.yaml_text import told, yaml_text

TOOL = "trl 1.16"
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_LORA = ("lora", "lora-all", "qlora", "dora", "rslora")
_LAUNCH = {
    "ddp": "multi_gpu",
    "fsdp": "fsdp2",
    "zero-1": "zero1",
    "zero-2": "zero2",
    "zero-3": "zero3",
}
"""Accelerate's configs that TRL brings along."""


def write(export: Export) -> str:
    """The config and what to do with it.

    Raises:
        UsageError: alpha is no whole number.
    """
    values = {
        "model_name_or_path": export.run.model.id,
        **_memory(export),
        **_method(export),
        **_data(export),
        **trainer_arguments(export, "warmup_steps"),
        "optim": OPTIMIZERS[export.training.optimizer],
        **_sharding(export),
        "logging_steps": 10,
        "report_to": "none",
        "output_dir": "output",
    }
    start = [
        "trl sft --config config.yaml     (data.jsonl beside it; each line is "
        + ('{"prompt": "...", "completion": "..."})' if export.completions else '{"text": "..."})')
    ]
    return yaml_text(header(export, TOOL, start, _differences(export)), told(values))


def _method(export: Export) -> dict[str, Any]:
    t = export.training
    if export.run.method.name == "full":
        return {"use_peft": False}
    lora = lora_of(export)
    targets = lora.targets
    return {
        "use_peft": True,
        "lora_r": lora.rank,
        "lora_alpha": whole(lora, "trl"),
        "lora_dropout": float(lora.dropout),
        "lora_target_modules": [targets] if isinstance(targets, str) else targets,
        "use_dora": True if lora.dora else None,
        "use_rslora": True if lora.rslora else None,
        "load_in_4bit": True if t.quantization in ("nf4", "nf4-dq") else None,
        "load_in_8bit": True if t.quantization == "int8" else None,
        "bnb_4bit_quant_type": "nf4" if t.quantization in ("nf4", "nf4-dq") else None,
        "use_bnb_nested_quant": True if t.quantization == "nf4-dq" else None,
    }


def _data(export: Export) -> dict[str, Any]:
    t = export.training
    return {
        "datasets": [{"path": "json", "data_files": "data.jsonl"}],
        "max_length": t.seq_len,
        "packing": not t.padded,
        "packing_strategy": None if t.padded else "wrapped",
        "per_device_train_batch_size": t.micro_batch_size,
        "gradient_accumulation_steps": t.gradient_accumulation_steps,
    }


def _memory(export: Export) -> dict[str, Any]:
    t = export.training
    reentrant = REENTRANT[t.gradient_checkpointing]
    half = t.amp and t.dtype == "fp16"
    return {
        "dtype": _DTYPES[t.dtype],
        "bf16": t.amp and not half,
        "fp16": half,
        "attn_implementation": None if t.attention == "sdpa" else t.attention,
        "gradient_checkpointing": reentrant is not None,
        "gradient_checkpointing_kwargs": (
            None if reentrant is None else {"use_reentrant": reentrant}
        ),
    }


def _sharding(export: Export) -> dict[str, Any]:
    run = export.run
    if run.gpus == 1:
        return {}
    return {"accelerate_config": _LAUNCH[run.sharding], "num_processes": run.gpus}


def _differences(export: Export) -> list[Difference]:
    t = export.training
    found = loop_difference(t, "trl")
    if t.loss != "fused-linear":
        text = "the loss is made in chunks, and logits never exist as a whole"
        found.append(changed(text, loss="fused-linear"))
    if t.quantization != "none":
        if t.kbit_preparation != "none":
            text = "norms, embeddings and head of a quantized base stay in 16 bits"
            found.append(changed(text, kbit_preparation="none"))
        found.append(Difference("adapters of a quantized base are trained in bf16, not in fp32"))
    if t.padded:
        found.append(Difference("batches are padded to their longest example, not to full length"))
    if export.run.gpus > 1 and not t.amp:
        found.append(
            Difference("accelerate's configs that come with trl say mixed_precision: bf16")
        )
    if t.transformers != "5":
        found.append(Difference("warmup_steps below 1 are a share from transformers 5 on"))
    return found


FORMAT = Format(
    name="trl",
    write=write,
    liger=False,
    methods=frozenset({"full", *_LORA}),
    offers={
        "quantization": ("none", "nf4", "nf4-dq", "int8"),
        "optimizer": tuple(OPTIMIZERS),
    },
)
