"""TrainingArguments of the exported script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.integrations.exports.liger import LOSSES, OTHERS_OFF
from peftadvisor.integrations.exports.peft_methods import low_rank_arguments
from peftadvisor.integrations.exports.python_source import Code
from peftadvisor.integrations.exports.schedule import OPTIMIZERS, REENTRANT, trainer_arguments
from peftadvisor.integrations.exports.sharding import deepspeed
from peftadvisor.integrations.exports.value import Export

if TYPE_CHECKING:
    from peftadvisor.simulator.attachment import Attachment

WARMUP = {"5": "warmup_steps", "4": "warmup_ratio", "4.45": "warmup_ratio"}


def arguments(export: Export, found: Attachment) -> dict[str, Any]:
    """Keyword arguments in the order of reading: how long, how large, how, how fast."""
    t = export.training
    told = trainer_arguments(export, WARMUP[t.transformers])
    told.pop("max_steps", None)
    optimizer = {"optim": OPTIMIZERS.get(t.optimizer), **low_rank_arguments(export, found.linears)}
    found_arguments = {
        "output_dir": Code("given.output"),
        "max_steps": Code("given.max_steps"),
        "num_train_epochs": told.pop("num_train_epochs", None),
        "per_device_train_batch_size": t.micro_batch_size,
        "gradient_accumulation_steps": t.gradient_accumulation_steps,
        **_checkpointing(export),
        **optimizer,
        **told,
        **_autocast(export),
        **_loss(export),
        **_sharding(export),
        "logging_steps": 10,
        "report_to": "none",
        "remove_unused_columns": False,
    }
    return {name: value for name, value in found_arguments.items() if value is not None}


def _checkpointing(export: Export) -> dict[str, Any]:
    reentrant = REENTRANT[export.training.gradient_checkpointing]
    if reentrant is None:
        return {}
    return {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
    }


def _autocast(export: Export) -> dict[str, bool]:
    t = export.training
    return {"fp16": True} if t.amp and t.dtype == "fp16" else {"bf16": t.amp}


def _loss(export: Export) -> dict[str, Any]:
    if export.training.loss == "torch":
        return {}
    kernels = {**LOSSES[export.training.loss], **OTHERS_OFF}
    return {"use_liger_kernel": True, "liger_kernel_config": kernels}


def _sharding(export: Export) -> dict[str, Any]:
    run = export.run
    if run.gpus == 1:
        return {}
    if run.sharding == "ddp":
        return {"ddp_find_unused_parameters": False}
    if run.sharding == "fsdp":
        return {"fsdp": True if export.training.transformers == "5" else "full_shard auto_wrap"}
    return {"deepspeed": deepspeed(run.sharding)}
