"""Axolotl's adapter keys as a method and the quantization of its base. Read in axolotl 0.19.0."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.axolotl_keys import STARTS, on
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    figure,
    names,
    one_of,
    switch,
    whole,
)
from peftadvisor.integrations.exports.lora import ALL_LINEAR
from peftadvisor.specs import MethodSpec, Quantization

_COMMAS = re.compile(r"\w+(\s*,\s*\w+)+")
_ADAPTERS = {"lora": "lora", "qlora": "qlora"}
LORA_KEYS = (
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_linear", "lora_target_modules"),
    *("peft_use_dora", "peft_use_rslora", "peft_init_lora_weights", "loraplus_lr_ratio", "gptq"),
    *("peft.loftq_config.loftq_bits", "bnb_config_kwargs.bnb_4bit_use_double_quant"),
    *("bnb_config_kwargs.bnb_4bit_quant_type", "bnb_config_kwargs.bnb_4bit_compute_dtype"),
    *("bnb_config_kwargs.bnb_4bit_quant_storage",),
)
"""Keys that count under an adapter alone."""


def read_method(reader: Reader) -> tuple[MethodSpec, Quantization]:
    """What is trained, and how the base is held.

    Raises:
        UsageError: axolotl would refuse the keys, or the method is none of ours.
    """
    for key in ("unfrozen_parameters", "spectrum_top_fraction"):
        if on(reader.peek(key)):
            raise UsageError(
                f"{reader.file}: '{key}' trains chosen weights, which are not predicted; remove "
                "it or choose an adapter"
            )
    _require_known_base(reader)
    for key in LORA_KEYS:
        reader.peek(key)
    adapter = None
    if reader.has("adapter"):
        adapter = reader.understood("adapter", reader.peek("adapter"), one_of(_ADAPTERS))
    quantization = _quantization(reader, adapter)
    if adapter is None:
        return _full(reader), quantization
    return _lora(reader, quantization), quantization


def _require_known_base(reader: Reader) -> None:
    key = "model_quantization_config"
    plain = on(reader.peek("model_quantization_config_kwargs.dequantize"))
    if reader.has(key) and not plain:
        raise UsageError(
            f"{reader.file}: '{key}' holds the base in a type that is not predicted; "
            "use 'load_in_4bit' or 'load_in_8bit'"
        )


def _full(reader: Reader) -> MethodSpec:
    if on(reader.peek("lisa_n_layers")) and on(reader.peek("lisa_step_interval")):
        reader.note("method", "lisa", "lisa_n_layers", "lisa_n_layers and no adapter")
        active = reader.take("active", "lisa_n_layers", whole, 2)
        interval = reader.take("interval", "lisa_step_interval", whole, 50)
        return MethodSpec(name="lisa").with_settings(active=active, interval=interval)
    reader.note("method", "full", None, "no adapter is named")
    return MethodSpec(name="full")


def _lora(reader: Reader, quantization: Quantization) -> MethodSpec:
    settings: dict[str, Any] = {
        "rank": _required(reader, "rank", "lora_r", whole),
        "alpha": _required(reader, "alpha", "lora_alpha", figure),
        "dropout": reader.take("dropout", "lora_dropout", amount, 0.0),
        "target_modules": _targets(reader),
    }
    name, more = _variant(reader, settings["target_modules"] == ALL_LINEAR, quantization)
    settings |= more
    if name in ("lora-all", "qlora", "loftq") and settings["target_modules"] == ALL_LINEAR:
        del settings["target_modules"]
    return MethodSpec(name=name).with_settings(**settings)


def _required(reader: Reader, name: str, key: str, read: Any) -> Any:
    if not reader.has(key):
        raise UsageError(f"{reader.file} lacks '{key}', which axolotl has no default for; add it")
    return reader.take(name, key, read, None)


def _targets(reader: Reader) -> str | tuple[str, ...]:
    """All linear layers, names, or the pattern that PEFT takes a text for.

    Raises:
        UsageError: neither all nor any are named.
    """
    key = "lora_target_modules"
    named = reader.has(key)
    if on(reader.peek("lora_target_linear")):
        more = f", {reader.told(key)}" if named else ""
        reader.note(
            "target_modules", ALL_LINEAR, "lora_target_linear", f"lora_target_linear: true{more}"
        )
        return ALL_LINEAR
    if not named:
        raise UsageError(
            f"{reader.file} names no layers for LoRA; add 'lora_target_linear: true' or "
            "'lora_target_modules'"
        )
    default: str | tuple[str, ...] = ALL_LINEAR
    return reader.take("target_modules", key, _pattern_or_names, default)


def _pattern_or_names(value: Any) -> str | tuple[str, ...]:
    if not isinstance(value, str):
        return names(value)
    if not value.strip() or _COMMAS.fullmatch(value.strip()):
        raise ValueError("write a list of names; axolotl takes a text for a pattern")
    return value.strip()


def _variant(
    reader: Reader, everywhere: bool, quantization: Quantization
) -> tuple[str, dict[str, Any]]:
    """The variant of LoRA and settings of its own; where two are asked for, the costlier."""
    start, more = _start(reader)
    ratio = reader.has("loraplus_lr_ratio")
    dora, rslora = (on(reader.peek(key)) for key in ("peft_use_dora", "peft_use_rslora"))
    plain = "qlora" if quantization == "nf4-dq" else "lora-all"
    found: Mapping[str, tuple[bool, str | None]] = {
        "dora": (dora, "peft_use_dora"),
        start: (bool(start), "peft_init_lora_weights"),
        "lora-plus": (ratio, "loraplus_lr_ratio"),
        "rslora": (rslora, "peft_use_rslora"),
        plain: (everywhere, "adapter"),
        "lora": (True, "adapter"),
    }
    name, key = next((name, key) for name, (asked, key) in found.items() if asked)
    reader.note("method", name, key, reader.told(key) if key else "lora")
    if name == "lora-plus":
        return name, {"lr_ratio": reader.take("lr_ratio", "loraplus_lr_ratio", figure, 16.0)}
    if name != start:
        return name, {}
    for setting, value in more.items():
        reader.note(setting, value, key, reader.told(str(key)))
    return name, more


def _start(reader: Reader) -> tuple[str, dict[str, Any]]:
    if on(reader.peek("peft.loftq_config.loftq_bits")):
        return STARTS["loftq"]
    key = "peft_init_lora_weights"
    found = reader.peek(key)
    return STARTS["true"] if found is None else reader.understood(key, found, one_of(STARTS))


def _quantization(reader: Reader, adapter: str | None) -> Quantization:
    """How the base is held.

    Raises:
        UsageError: axolotl refuses the keys together, or would not quantize what they ask for.
    """
    four, eight = (
        reader.has(key) and reader.understood(key, reader.peek(key), switch)
        for key in ("load_in_4bit", "load_in_8bit")
    )
    _require_loadable(reader, adapter, four, eight)
    if adapter == "qlora":
        return _four_bits(reader)
    key = "load_in_8bit" if eight else "gptq"
    said = eight or on(reader.peek("gptq"))
    kind: Quantization = "int8" if eight else "gptq" if said else "none"
    where = (key, f"{key}: true") if said else (None, f"default of {reader.defaults_of}")
    reader.note("quantization", kind, *where)
    return kind


def _require_loadable(reader: Reader, adapter: str | None, four: bool, eight: bool) -> None:
    if adapter is None and (four or eight):
        key = "load_in_4bit" if four else "load_in_8bit"
        raise UsageError(
            f"{reader.file}: '{key}' without 'adapter' is refused by axolotl; add 'adapter' or "
            f"set '{key}: false'"
        )
    if adapter == "qlora" and (eight or not four):
        raise UsageError(
            f"{reader.file}: 'adapter: qlora' needs 'load_in_4bit: true' and no 'load_in_8bit'"
        )
    if adapter == "lora" and four:
        raise UsageError(
            f"{reader.file}: 'load_in_4bit' with 'adapter: lora' loads no 4-bit weights in "
            f"{reader.defaults_of}; write 'adapter: qlora' or set 'load_in_4bit: false'"
        )


def _four_bits(reader: Reader) -> Quantization:
    key = "bnb_config_kwargs.bnb_4bit_use_double_quant"
    if not reader.has(key):
        told = f"load_in_4bit: true, double quantization by default of {reader.defaults_of}"
        reader.note("quantization", "nf4-dq", "load_in_4bit", told)
        return "nf4-dq"
    kinds: dict[bool, Quantization] = {True: "nf4-dq", False: "nf4"}
    return reader.take("quantization", key, lambda found: kinds[switch(found)], "nf4-dq")
