"""LLaMA-Factory's ways to train, as our methods: adapters, low-rank optimizers, blocks, all of it.

Read in llamafactory 0.9.5 (``hparams/finetuning_args.py``, ``model/adapter.py``,
``train/trainer_utils.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.checkpoints import targets
from peftadvisor.integrations.configs.method import lora_of, method_of
from peftadvisor.integrations.configs.peft_config import pissa_start
from peftadvisor.integrations.configs.peft_kinds import integer
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    figure,
    names,
    one_of,
    shown,
    switch,
    whole,
)
from peftadvisor.specs import MethodSpec, Quantization

Found = tuple[MethodSpec, tuple[str, ...]]
_TYPES = {name: name for name in ("lora", "oft", "full")}
_OPTIMIZERS = ("use_galore", "use_apollo", "use_badam")
_RESUMED = "the adapter of adapter_name_or_path is taken to be as this config would make a new one"


def method_in(reader: Reader, model: str, quantization: Quantization) -> Found:
    """The method, and notes on what of it is left out.

    Raises:
        UsageError: a way to train that is not predicted, or that the tool itself refuses.
    """
    kind = reader.take("finetuning_type", "finetuning_type", _type, "lora")
    on = [key for key in _OPTIMIZERS if reader.understood(key, reader.peek(key, False), switch)]
    if on and kind == "lora" or len(on) > 1:
        raise UsageError(
            f"{reader.file}: '{on[-1]}' goes with finetuning_type full and without the others of "
            f"{', '.join(_OPTIMIZERS)}; keep one of them"
        )
    if quantization not in ("none", "gptq") and kind not in ("lora", "oft"):
        raise UsageError(
            f"{reader.file}: 'quantization_bit' goes with finetuning_type lora or oft, not {kind}"
        )
    if kind == "full" and on:
        return _BY_OPTIMIZER[on[0]](reader)
    if kind == "full":
        return method_of("full", {}), ()
    found, notes = _ADAPTERS[kind](reader, model, quantization)
    return found, (*notes, _RESUMED) if reader.peek("adapter_name_or_path") else notes


def _type(value: Any) -> str:
    if str(value).lower() == "freeze":
        raise ValueError("training some layers alone is not predicted; known here: lora, oft, full")
    return one_of(_TYPES)(value)


def _lora(reader: Reader, model: str, quantization: Quantization) -> Found:
    rank = reader.take("rank", "lora_rank", whole, 8)
    twice_rank: float = 2 * rank
    twice = f"default of {reader.defaults_of}: twice the rank"
    settings = {
        "rank": rank,
        "alpha": reader.take("alpha", "lora_alpha", figure, twice_rank, twice),
        "dropout": reader.take("dropout", "lora_dropout", amount, 0.0),
        "target_modules": _targets(reader, "lora_target", model),
    }
    switched: dict[str, dict[str, Any]] = {}
    for name in ("dora", "rslora"):
        if reader.take(f"use_{name}", f"use_{name}", switch, False):
            switched[name] = {}
    if reader.has("loraplus_lr_ratio"):
        ratio = reader.take("lr_ratio", "loraplus_lr_ratio", figure, 16.0)
        switched["lora-plus"] = {"lr_ratio": ratio}
    if reader.take("pissa_init", "pissa_init", switch, False):
        switched["pissa"] = {"init": reader.take("init", "pissa_iter", _pissa, "pissa_niter_16")}
        if quantization != "none":
            raise UsageError(f"{reader.file}: 'pissa_init' does not go with a quantized model")
    return lora_of(switched, settings, quantization)


def _pissa(value: Any) -> str:
    steps = integer(value)
    return "pissa" if steps == -1 else pissa_start(f"pissa_niter_{steps}")


def _targets(reader: Reader, key: str, model: str) -> Any:
    """Names of layers, ``all`` of them unless said otherwise."""
    found = reader.peek(key, ("all",))
    value = targets(model, reader.understood(key, found, names))
    said = reader.has(key)
    source = f"{key}: {shown(found)}" if said else f"default of {reader.defaults_of}: all"
    reader.note("target_modules", value, key if said else None, source)
    return value


def _oft(reader: Reader, model: str, _: Quantization) -> Found:
    if reader.understood("oft_rank", reader.peek("oft_rank", 0), integer):
        raise UsageError(
            f"{reader.file}: 'oft_rank' is {shown(reader.peek('oft_rank'))}; write 0 and the size "
            "of a block by oft_block_size"
        )
    settings = {
        "block_size": reader.take("block_size", "oft_block_size", whole, 32),
        "target_modules": _targets(reader, "oft_target", model),
    }
    return method_of("oft", settings), ()


_ADAPTERS: Mapping[str, Callable[[Reader, str, Quantization], Found]] = {
    "lora": _lora,
    "oft": _oft,
}


def _low_rank(name: str, scale: float, more: Mapping[str, Any]) -> Callable[[Reader], Found]:
    """GaLore or APOLLO over all linear layers; ``more`` are what else it must be told to be."""

    def method(reader: Reader) -> Found:
        held = {"layerwise": False, "proj_type": "std", **more}
        for key, value in held.items():
            found = reader.peek(f"{name}_{key}", value)
            if str(found).lower() != str(value).lower():
                raise UsageError(
                    f"{reader.file}: '{name}_{key}' is {shown(found)}; only {shown(value)} is "
                    "predicted"
                )
        settings = {
            "rank": reader.take("rank", f"{name}_rank", whole, 16),
            "gap": reader.take("gap", f"{name}_update_interval", whole, 200),
            "scale": reader.take("scale", f"{name}_scale", amount, scale),
        }
        target = reader.peek(f"{name}_target", "all")
        if target == "all":
            return method_of(name, settings), ()
        return method_of(name, settings), (f"{name}_target is taken to be all linear layers",)

    return method


def _badam(reader: Reader) -> Found:
    mode = str(reader.peek("badam_mode", "layer")).lower()
    if mode != "layer":
        raise UsageError(f"{reader.file}: 'badam_mode' is {shown(mode)}; only layer is predicted")
    interval = reader.take("interval", "badam_switch_interval", whole, 50)
    return method_of("badam", {"interval": interval}), ()


_BY_OPTIMIZER: Mapping[str, Callable[[Reader], Found]] = {
    "use_galore": _low_rank("galore", 2.0, {}),
    "use_apollo": _low_rank(
        "apollo", 32.0, {"proj": "random", "scale_type": "channel", "scale_front": False}
    ),
    "use_badam": _badam,
}
LOW_RANK = frozenset({"galore", "apollo"})
WHOLE = frozenset({"full", "galore", "apollo", "badam"})
"""Methods whose trained weights are the model's own."""
