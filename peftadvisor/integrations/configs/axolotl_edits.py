"""Changes of a run in axolotl's keys. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.integrations.configs.axolotl_keys import (
    LIGER,
    LIGER_PLUGIN,
    LOSSES,
    NON_REENTRANT_TYPES,
    model_type,
    on,
)
from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, ReadConfig
from peftadvisor.integrations.exports.liger import MODEL_TYPES
from peftadvisor.integrations.exports.schedule import OPTIMIZERS, REENTRANT

Values = Mapping[str, Any]
Edits = dict[str, Any] | None
"""Top-level keys and what is to stand there, null where a key is to count as left out."""


def edits(file: ConfigFile, config: ReadConfig, change: Change) -> tuple[Edit, ...] | None:
    """The change in axolotl's keys, None where it has no word for a part of it."""
    found: dict[str, Any] = {}
    for name, value in change.items():
        told = _LEVERS[name](file.values, config, value) if name in _LEVERS else None
        if told is None:
            return None
        found |= told
    return tuple(Edit((key,), value) for key, value in found.items())


def _micro_batch(values: Values, config: ReadConfig, value: Any) -> Edits:
    """The micro batch; how many make a step stays what it is where ``batch_size`` said it."""
    steps = _accumulation(values, config, config.training.gradient_accumulation_steps)
    return {"micro_batch_size": value, **((steps or {}) if "batch_size" in values else {})}


def _accumulation(values: Values, _: ReadConfig, value: Any) -> Edits:
    total = {"batch_size": None} if values.get("batch_size") is not None else {}
    return {"gradient_accumulation_steps": value, **total}


def _length(_: Values, __: ReadConfig, value: Any) -> Edits:
    return {"sequence_len": value}


def _checkpointing(values: Values, config: ReadConfig, value: Any) -> Edits:
    """Checkpointing and its kind; what goes with another kind of it is turned off."""
    reentrant = REENTRANT[value]
    if reentrant and model_type(config.model) in NON_REENTRANT_TYPES:
        return None
    told: dict[str, Any] = {"gradient_checkpointing": reentrant is not None}
    for key in ("activation_offloading", "selective_checkpointing"):
        if on(values.get(key)):
            told[key] = False
    if reentrant is not None:
        given = values.get("gradient_checkpointing_kwargs")
        kept = dict(given) if isinstance(given, Mapping) else {}
        told["gradient_checkpointing_kwargs"] = {**kept, "use_reentrant": reentrant}
    return told | _fsdp_checkpointing(values)


def _fsdp_checkpointing(values: Values) -> dict[str, Any]:
    config = values.get("fsdp_config")
    if not isinstance(config, Mapping):
        return {}
    asked = [key for key in config if key.endswith("activation_checkpointing") and on(config[key])]
    return {"fsdp_config": {**config, **dict.fromkeys(asked, False)}} if asked else {}


def _optimizer(values: Values, _: ReadConfig, value: Any) -> Edits:
    """Its name; axolotl refuses bitsandbytes' 8-bit AdamW under FSDP2 and takes torchao's."""
    if value not in OPTIMIZERS:
        return None
    if value == "adamw-8bit" and _fsdp_version(values) == "2":
        return {"optimizer": "adamw_torch_8bit"}
    return {"optimizer": OPTIMIZERS[value]}


def _fsdp_version(values: Values) -> str:
    config = values.get("fsdp_config")
    inner = config if isinstance(config, Mapping) else {}
    return str(
        values.get("fsdp_version") or inner.get("version") or inner.get("fsdp_version") or ""
    )


def _quantization(values: Values, config: ReadConfig, value: Any) -> Edits:
    """The adapter that axolotl quantizes under, and the switch; without an adapter none."""
    if config.method.name in ("full", "lisa") or value == "gptq" or on(values.get("gptq")):
        return None
    four = value in ("nf4", "nf4-dq")
    told = {
        "adapter": "qlora" if four else "lora",
        "load_in_4bit": four,
        "load_in_8bit": value == "int8",
    }
    given = values.get("bnb_config_kwargs")
    kept = dict(given) if isinstance(given, Mapping) else {}
    double = value == "nf4-dq"
    if four and double != kept.get("bnb_4bit_use_double_quant", True):
        told["bnb_config_kwargs"] = {**kept, "bnb_4bit_use_double_quant": double}
    return told | (_no_kernels(values) if value == "int8" else {})


def _no_kernels(values: Values) -> dict[str, Any]:
    """Axolotl refuses its kernels of LoRA on an 8-bit base."""
    keys = [f"lora_{part}_kernel" for part in ("mlp", "qkv", "o")]
    return {key: False for key in keys if on(values.get(key))}


def _loss(values: Values, config: ReadConfig, value: Any) -> Edits:
    """The switch of one loss, those of all others off, and Liger's plugin where it is needed."""
    wanted = {"fused": "liger_cross_entropy", "fused-linear": "liger_fused_linear_cross_entropy"}
    if value != "torch" and model_type(config.model) not in MODEL_TYPES:
        return None
    key = wanted.get(value)
    listed = values.get("plugins")
    plugins = [str(name) for name in listed] if isinstance(listed, list) else []
    cut = any(name.endswith("CutCrossEntropyPlugin") for name in plugins)
    off = [other for other in LOSSES if on(values.get(other)) and other != key]
    told: dict[str, Any] = dict.fromkeys([*off, *(["cut_cross_entropy"] if cut else [])], False)
    if key:
        told[key] = True
        if not any(name.endswith(LIGER_PLUGIN) for name in plugins):
            told["plugins"] = [*plugins, LIGER]
    return told


_LEVERS: Mapping[str, Callable[[Values, ReadConfig, Any], Edits]] = {
    "micro_batch_size": _micro_batch,
    "gradient_accumulation_steps": _accumulation,
    "gradient_checkpointing": _checkpointing,
    "optimizer": _optimizer,
    "quantization": _quantization,
    "seq_len": _length,
    "loss": _loss,
}
