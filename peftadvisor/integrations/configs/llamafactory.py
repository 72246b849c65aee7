"""LLaMA-Factory's YAML or JSON, as ``llamafactory-cli train`` takes it. Read in 0.9.5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs import arguments, ignored
from peftadvisor.integrations.configs.changes import edits_by
from peftadvisor.integrations.configs.checkpoints import is_gptq, model_type, weights_dtype
from peftadvisor.integrations.configs.llamafactory_edits import EDITS, has_liger
from peftadvisor.integrations.configs.llamafactory_keys import ASIDE, LEFT_OUT, OWN, REFUSED
from peftadvisor.integrations.configs.llamafactory_methods import LOW_RANK, WHOLE, method_in
from peftadvisor.integrations.configs.reader import Reader, one_of, shown, switch, whole
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.specs import (
    Attention,
    Checkpointing,
    KbitPreparation,
    Loss,
    MethodSpec,
    Optimizer,
    Quantization,
    Sharding,
    Task,
    TrainingSpec,
)

VERSION = "0.9.5"
_STAGES: Mapping[str, Task] = {"sft": "instruction", "pt": "pretraining"}
_PAIRS = frozenset({"dpo", "kto", "rm", "ppo"})
_ATTENTION: Mapping[str, Attention] = {
    "auto": "sdpa",
    "sdpa": "sdpa",
    "fa2": "flash_attention_2",
    "disabled": "eager",
}
_BITS: Mapping[str, Quantization] = {"4": "nf4", "8": "int8"}


def marks(values: Mapping[str, Any]) -> int:
    """Signs of LLaMA-Factory: its own keys, and with them those of TrainingArguments."""
    own = sum(key in values for key in OWN)
    return own + arguments.marks(values) + ("model_name_or_path" in values) if own else 0


def read(file: ConfigFile) -> ReadConfig:
    """The run that the config describes.

    Raises:
        UsageError: a value that the tool or the prediction does not take, or no model.
    """
    shown_path = one_line(file.path)
    reader = Reader(file.values, shown_path, f"llamafactory {VERSION}")
    _refuse(reader)
    _require_training(reader)
    task: Task = reader.take("task", "stage", _stage, "instruction")
    model = arguments.model(reader)
    quantization = _quantization(reader, model)
    method, method_notes = method_in(reader, model, quantization)
    named = next((key for key in ("finetuning_type", "lora_target") if reader.has(key)), None)
    reader.note("method", method.name, named, "finetuning_type and what goes with it")
    sharding, sharding_notes = arguments.division(reader, Path(file.path).parent)
    return ReadConfig(
        tool="llamafactory",
        version=VERSION,
        model=model,
        method=method,
        training=_training(reader, (model, task), method, quantization, sharding),
        learning_rate=arguments.learning_rate(reader),
        job=arguments.job(reader, task),
        gpus=reader.take("gpus", "ray_num_workers", whole, None, "not said"),
        sharding=sharding,
        notes=(*method_notes, *sharding_notes, *_notes(reader, method, sharding)),
        traced=tuple(reader.traced),
        unknown=reader.unknown({*ignored.ARGUMENTS, *ASIDE}),
    )


def _training(
    reader: Reader, of: tuple[str, Task], method: MethodSpec, kept: Quantization, by: Sharding
) -> TrainingSpec:
    """How it trains, ``of`` being the model and the task."""
    model, task = of
    return TrainingSpec(
        **arguments.batch(reader),
        **_lengths(reader, task),
        **_precision(reader, model, method, by == "zero-3"),
        quantization=kept,
        kbit_preparation=_preparation(reader, kept),
        optimizer=_optimizer(reader, method),
        gradient_checkpointing=_checkpointing(reader),
        attention=_attention(reader, model),
        max_grad_norm=arguments.clipping(reader),
        loss=_loss(reader, model),
        loop="trainer",
    )


def _refuse(reader: Reader) -> None:
    for key, reason in REFUSED.items():
        found = reader.peek(key)
        if found is not None and str(found).lower() not in ("false", "0", "no", "none"):
            raise UsageError(f"{reader.file}: '{key}' is {shown(found)}; {reason}")


def _require_training(reader: Reader) -> None:
    """Refuse configs for prediction, merging and chat, which hold no data to train on.

    Raises:
        UsageError: there are neither data nor the word to train.
    """
    if not reader.peek("do_train") and not reader.has("dataset"):
        raise UsageError(
            f"{reader.file} trains nothing, as it has neither 'do_train: true' nor a 'dataset'"
        )


def _stage(value: Any) -> Task:
    if str(value).lower() in _PAIRS:
        raise ValueError(
            "runs of two models or on pairs are not predicted; known here: " + ", ".join(_STAGES)
        )
    return one_of(_STAGES)(value)


def _quantization(reader: Reader, model: str) -> Quantization:
    """What ``quantization_bit`` and its companions make of the base."""
    if is_gptq(model):
        reader.note("quantization", "gptq", None, f"the config of {model}")
        return "gptq"
    method = reader.peek("quantization_method", "bnb")
    reader.understood("quantization_method", method, one_of({"bnb": "bnb", "bitsandbytes": "bnb"}))
    found: Quantization = reader.take("quantization", "quantization_bit", one_of(_BITS), "none")
    double = reader.understood(
        "double_quantization", reader.peek("double_quantization", True), switch
    )
    kinds = {"nf4": "nf4", "fp4": "nf4"}
    reader.understood("quantization_type", reader.peek("quantization_type", "nf4"), one_of(kinds))
    if found != "nf4" or not double:
        return found
    said = reader.has("double_quantization")
    source = "double_quantization: true" if said else f"default of {reader.defaults_of}"
    key = "double_quantization" if said else None
    reader.note("quantization", "nf4-dq", key, f"{source}, beside quantization_bit: 4")
    return "nf4-dq"


def _preparation(reader: Reader, quantization: Quantization) -> KbitPreparation:
    """Norms in fp32 where asked for; of a base that is not quantized nothing is said."""
    upcast = reader.understood("upcast_layernorm", reader.peek("upcast_layernorm", False), switch)
    if quantization == "none":
        return TrainingSpec().kbit_preparation
    value: KbitPreparation = "trl" if upcast else "none"
    said = reader.has("upcast_layernorm")
    source = f"upcast_layernorm: {shown(upcast)}" if said else f"default of {reader.defaults_of}"
    reader.note("kbit_preparation", value, "upcast_layernorm" if said else None, source)
    return value


def _lengths(reader: Reader, task: Task) -> dict[str, Any]:
    """Lengths, and whether batches hold a mask: packed ones do not, neatly packed ones may."""
    seq_len = reader.take("seq_len", "cutoff_len", whole, 2048)
    neat = reader.understood("neat_packing", reader.peek("neat_packing", False), switch)
    packing = reader.understood("packing", reader.peek("packing", task == "pretraining"), switch)
    flash = str(reader.peek("flash_attn")).lower() == "fa2"
    padded = not packing and not neat or neat and not flash
    key = "neat_packing" if neat else "packing" if reader.has("packing") else None
    source = f"{key}: {shown(reader.peek(key))}" if key else f"default of {reader.defaults_of}"
    reader.note("padded", padded, key, source)
    return {"seq_len": seq_len, "padded": padded}


def _precision(reader: Reader, model: str, method: MethodSpec, sharded: bool) -> dict[str, Any]:
    """Weights as the checkpoint has them; trained ones of the model itself in fp32 unless pure."""
    pure = reader.understood("pure_bf16", reader.peek("pure_bf16", False), switch)
    low = arguments.autocast(reader)
    if pure and low:
        raise UsageError(f"{reader.file}: 'pure_bf16' goes without bf16 and fp16; keep one of them")
    if pure and sharded:
        raise UsageError(f"{reader.file}: 'pure_bf16' does not go with ZeRO-3")
    dtype, source = weights_dtype(model)
    if method.name in WHOLE and method.name != "badam" and not pure:
        dtype, source = "fp32", f"{reader.defaults_of} trains weights in fp32 without pure_bf16"
    reader.note("dtype", dtype, "pure_bf16" if pure else None, source)
    return {"dtype": dtype, "amp": low is not None}


def _optimizer(reader: Reader, method: MethodSpec) -> Optimizer:
    found = arguments.optimizer(reader)
    if method.name not in LOW_RANK:
        return found
    if not reader.has("optim") or found == "adamw":
        return "adamw"
    raise UsageError(
        f"{reader.file}: 'optim' is {shown(reader.peek('optim'))}; {method.name} is predicted with "
        "adamw_torch alone"
    )


def _checkpointing(reader: Reader) -> Checkpointing:
    """On unless disabled, and reentrant unless told otherwise."""
    off = reader.peek("disable_gradient_checkpointing", False)
    disabled = reader.understood("disable_gradient_checkpointing", off, switch)
    reentrant = reader.peek("use_reentrant_gc", True)
    value: Checkpointing = "reentrant"
    if not reader.understood("use_reentrant_gc", reentrant, switch):
        value = "non-reentrant"
    if disabled and arguments.checkpointing(reader, on=False) != "none":
        return arguments.checkpointing(reader, on=False)  # what the Trainer switches on itself
    if disabled:
        value = "none"
    keys = ("disable_gradient_checkpointing", "use_reentrant_gc")
    key = next((key for key in keys if reader.has(key)), None)
    source = (
        f"default of {reader.defaults_of}" if key is None else f"{key}: {shown(reader.peek(key))}"
    )
    reader.note("gradient_checkpointing", value, key, source)
    return value


def _attention(reader: Reader, model: str) -> Attention:
    found: Attention = reader.take("attention", "flash_attn", one_of(_ATTENTION), "sdpa")
    automatic = str(reader.peek("flash_attn", "auto")).lower() == "auto"
    if automatic and model_type(model) == "gemma2":
        text = "flash_attn: auto gives Gemma 2 eager attention where flash-attn is not installed"
        reader.note("attention", "eager", None, text)
        return "eager"
    return found


def _loss(reader: Reader, model: str) -> Loss:
    """Liger's, by its own switch or by that of TrainingArguments."""
    key = "use_liger_kernel" if reader.peek("use_liger_kernel") else "enable_liger_kernel"
    return arguments.liger(reader, key, has_liger(model), "liger_kernel_config")


def _notes(reader: Reader, method: MethodSpec, sharding: Sharding) -> tuple[str, ...]:
    found = list(ignored.notes(reader, LEFT_OUT))
    if not reader.peek("do_train"):
        found.append("do_train is not true, without which nothing is trained")
    if sharding.startswith("zero") and method.name in WHOLE and not reader.peek("pure_bf16"):
        found.append("DeepSpeed holds 16-bit weights and fp32 copies, predicted as fp32 weights")
    if method.name in LOW_RANK and not reader.has("optim"):
        found.append(f"{method.name} needs 'optim: adamw_torch' written out")
    return tuple(found)


TOOL = Tool(
    name="llamafactory", title="LLaMA-Factory", marks=marks, read=read, edits=edits_by(EDITS)
)
