"""Changes of settings in LLaMA-Factory's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.integrations.configs.changes import Say
from peftadvisor.integrations.configs.checkpoints import model_type
from peftadvisor.integrations.configs.llamafactory_keys import LIGER
from peftadvisor.integrations.configs.llamafactory_methods import LOW_RANK, WHOLE
from peftadvisor.integrations.configs.value import ReadConfig
from peftadvisor.integrations.exports.schedule import OPTIMIZERS


def has_liger(model: str) -> bool:
    """Whether it has Liger's kernels for a model; one that is not known here may be."""
    found = model_type(model)
    return found is None or found in LIGER


def _to_checkpointing(value: Any) -> dict[str, Any]:
    if value == "none":
        return {"disable_gradient_checkpointing": True, "gradient_checkpointing": None}
    return {
        "disable_gradient_checkpointing": False,
        "use_reentrant_gc": value == "reentrant",
    }


def _to_quantization(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    adapters = config.method.name not in WHOLE and config.method.name != "pissa"
    four = {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True}
    changes: Mapping[str, dict[str, Any]] = {
        "none": {"quantization_bit": None},
        "nf4": {**four, "double_quantization": False},
        "nf4-dq": four,
        "int8": {"quantization_bit": 8},
    }
    if config.training.quantization == "gptq" or not (adapters or value == "none"):
        return None
    return changes.get(value)


def _to_optimizer(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    if value not in OPTIMIZERS or (config.method.name in LOW_RANK and value != "adamw"):
        return None
    return {"optim": OPTIMIZERS[value]}


_LOSSES: Mapping[str, dict[str, Any]] = {
    "torch": {"enable_liger_kernel": False, "use_liger_kernel": None},
    "fused-linear": {"enable_liger_kernel": True},
}


def _to_loss(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    return None if value != "torch" and not has_liger(config.model) else _LOSSES.get(value)


EDITS: Mapping[str, Say] = {
    "micro_batch_size": lambda v, _: {"per_device_train_batch_size": v},
    "gradient_accumulation_steps": lambda v, _: {"gradient_accumulation_steps": v},
    "seq_len": lambda v, _: {"cutoff_len": v},
    "gradient_checkpointing": lambda v, _: _to_checkpointing(v),
    "optimizer": _to_optimizer,
    "quantization": _to_quantization,
    "loss": _to_loss,
}
"""Every setting that can be said, each in its keys."""
