"""Changes of settings in TRL's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.integrations.configs.changes import Say
from peftadvisor.integrations.configs.trainer_edits import checkpointing
from peftadvisor.integrations.configs.value import ReadConfig
from peftadvisor.integrations.exports.schedule import OPTIMIZERS


def _to_checkpointing(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    forced = config.sharding == "zero-3" and config.method.name != "full"
    if forced and value == "non-reentrant":  # made reentrant, whatever is said
        return None
    return checkpointing(value)


def _to_quantization(value: Any, config: ReadConfig) -> dict[str, Any] | None:
    if config.method.name == "full" and value != "none":
        return None
    four = {"load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4"}
    changes: Mapping[str, dict[str, Any]] = {
        "none": {"load_in_4bit": False, "load_in_8bit": False},
        "nf4": {**four, "use_bnb_nested_quant": False},
        "nf4-dq": {**four, "use_bnb_nested_quant": True},
        "int8": {"load_in_4bit": False, "load_in_8bit": True},
    }
    return changes.get(value)


EDITS: Mapping[str, Say] = {
    "micro_batch_size": lambda v, _: {"per_device_train_batch_size": v},
    "gradient_accumulation_steps": lambda v, _: {"gradient_accumulation_steps": v},
    "seq_len": lambda v, _: {"max_length": v},
    "gradient_checkpointing": _to_checkpointing,
    "optimizer": lambda v, _: {"optim": OPTIMIZERS[v]} if v in OPTIMIZERS else None,
    "quantization": _to_quantization,
    "loss": lambda v, config: {} if v == config.training.loss else None,
}
"""Every setting that can be said, each in its keys."""
