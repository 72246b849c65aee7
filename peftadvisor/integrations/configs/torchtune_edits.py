"""Changes of a run in torchtune's keys. Read in torchtune 0.6.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, Path, ReadConfig
from peftadvisor.integrations.exports.torchtune import LOSSES, OPTIMIZERS

Values = Mapping[str, Any]
Told = dict[Path, Any] | None
_CHECKPOINTING = {"none": False, "non-reentrant": True}
_SWITCHES = ("fused", "foreach")


def edits(file: ConfigFile, config: ReadConfig, change: Change) -> tuple[Edit, ...] | None:
    """The change in torchtune's keys, None where it has no word for a part of it."""
    found: dict[Path, Any] = {}
    for name, value in change.items():
        told = _LEVERS[name](file.values, config, value) if name in _LEVERS else None
        if told is None:
            return None
        found |= told
    return tuple(Edit(path, value) for path, value in found.items())


def _at(*path: str) -> Callable[[Values, ReadConfig, Any], Told]:
    return lambda _, __, value: {path: value}


def _checkpointing(values: Values, _: ReadConfig, value: Any) -> Told:
    """Checkpointing; offload goes with it and is refused without."""
    if value not in _CHECKPOINTING:
        return None
    told: dict[Path, Any] = {("enable_activation_checkpointing",): _CHECKPOINTING[value]}
    if value == "none" and values.get("enable_activation_offloading"):
        told[("enable_activation_offloading",)] = False
    return told


def _optimizer(values: Values, _: ReadConfig, value: Any) -> Told:
    """The component and its switches; those of another component are taken away."""
    if value not in OPTIMIZERS:
        return None
    given = values.get("optimizer")
    kept = dict(given) if isinstance(given, Mapping) else {}
    for key in _SWITCHES:
        kept.pop(key, None)
    if OPTIMIZERS[value]["_component_"] != (given or {}).get("_component_"):
        kept = {key: kept[key] for key in ("lr", "weight_decay") if key in kept}
    return {("optimizer",): {**OPTIMIZERS[value], **{k: kept[k] for k in kept if k[0] != "_"}}}


def _quantization(_: Values, config: ReadConfig, value: Any) -> Told:
    """Only adapters have a quantized base, of nf4 with double quantization."""
    if config.method.name == "full" or value not in ("none", "nf4-dq"):
        return None
    return {("model", "quantize_base"): value == "nf4-dq"}


def _loss(_: Values, __: ReadConfig, value: Any) -> Told:
    return {("loss",): {"_component_": LOSSES[value]}} if value in LOSSES else None


_LEVERS: Mapping[str, Callable[[Values, ReadConfig, Any], Told]] = {
    "micro_batch_size": _at("batch_size"),
    "gradient_accumulation_steps": _at("gradient_accumulation_steps"),
    "gradient_checkpointing": _checkpointing,
    "optimizer": _optimizer,
    "quantization": _quantization,
    "seq_len": _at("tokenizer", "max_seq_len"),
    "loss": _loss,
}
