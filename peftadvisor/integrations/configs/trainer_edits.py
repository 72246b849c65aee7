"""Changes of settings in the keys of TrainingArguments."""

from __future__ import annotations

from typing import Any

from peftadvisor.integrations.configs.arguments import FSDP_CHECKPOINTING
from peftadvisor.integrations.configs.changes import edits_by
from peftadvisor.integrations.configs.checkpoints import model_type
from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, ReadConfig
from peftadvisor.integrations.exports.liger import LOSSES, MODEL_TYPES
from peftadvisor.integrations.exports.schedule import OPTIMIZERS, REENTRANT


def has_liger(model: str) -> bool:
    """Whether Liger may know a model: one of another type stays as it is."""
    found = model_type(model)
    return found is None or found in MODEL_TYPES


def checkpointing(value: Any) -> dict[str, Any]:
    """TrainingArguments that say a kind of checkpointing."""
    reentrant = REENTRANT[value]
    if reentrant is None:
        return {"gradient_checkpointing": False}
    return {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": reentrant},
    }


def _to_checkpointing(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    by_fsdp = any(traced.key == FSDP_CHECKPOINTING for traced in config.traced)
    return None if by_fsdp and value == "none" else checkpointing(value)


def _to_optimizer(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    if value not in OPTIMIZERS or config.method.name in ("galore", "apollo"):
        return None
    return {"optim": OPTIMIZERS[value]}


def _to_loss(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    if value == "torch":
        return {"use_liger_kernel": False}
    if not has_liger(config.model):
        return None
    return {"use_liger_kernel": True, "liger_kernel_config": LOSSES[value]}


def _to_length(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    """TrainingArguments know no length; where a script added one, that is its key."""
    key = next((traced.key for traced in config.traced if traced.name == "seq_len"), None)
    return None if key is None else {key: value}


_EDITS = edits_by(
    {
        "micro_batch_size": lambda v, _: {"per_device_train_batch_size": v},
        "gradient_accumulation_steps": lambda v, _: {"gradient_accumulation_steps": v},
        "seq_len": _to_length,
        "gradient_checkpointing": _to_checkpointing,
        "optimizer": _to_optimizer,
        "loss": _to_loss,
    }
)


def edits(file: ConfigFile, config: ReadConfig, change: Change) -> tuple[Edit, ...] | None:
    """A change of the arguments; an adapter's config, if that was passed, holds none of them."""
    return None if "peft_type" in file.values else _EDITS(file, config, change)
