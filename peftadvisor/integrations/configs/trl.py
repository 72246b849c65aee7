"""TRL's YAML for ``trl sft``, and the same fields as JSON. Read in trl 1.16.0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs import arguments, ignored
from peftadvisor.integrations.configs.accelerate import Launch, launch_of
from peftadvisor.integrations.configs.changes import edits_by
from peftadvisor.integrations.configs.checkpoints import DTYPES, weights_dtype
from peftadvisor.integrations.configs.method import lora_of, method_of
from peftadvisor.integrations.configs.peft_config import (
    PEFT,
    adapter_beside,
    beside,
    method_in,
    target_modules,
)
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    figure,
    one_of,
    shown,
    switch,
    whole,
)
from peftadvisor.integrations.configs.trl_edits import EDITS
from peftadvisor.integrations.configs.trl_keys import (
    ASIDE,
    ATTENTION,
    LEFT_OUT,
    NAMES,
    OTHER_TRAINERS,
    OWN,
    REFUSED,
)
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.specs import (
    Checkpointing,
    DType,
    KbitPreparation,
    Loss,
    MethodSpec,
    Quantization,
    Sharding,
    TrainingSpec,
)

VERSION = "1.16.0"


def marks(values: Mapping[str, Any]) -> int:
    """Signs of TRL: its own keys, and with them those of TrainingArguments."""
    own = sum(key in values for key in OWN)
    own = own if "model_name_or_path" in values or own > 1 else 0
    return own + arguments.marks(values) + ("model_name_or_path" in values) if own else 0


def read(file: ConfigFile) -> ReadConfig:
    """The run that the config describes.

    Raises:
        UsageError: a value that the tool or the prediction does not take, another trainer than
            SFT, or no model.
    """
    reader = Reader(file.values, one_line(file.path), f"trl {VERSION}")
    _refuse(reader)
    reader.note("task", "instruction", None, "what trl sft is for")
    folder = Path(file.path).parent
    peft = _adapter(reader, folder)
    model = _model(reader, peft)
    quantization = _quantization(reader)
    method, method_notes = _method(reader, peft, model, quantization)
    launch, sharding_notes = _launch(reader, folder)
    return ReadConfig(
        tool="trl",
        version=VERSION,
        model=model,
        method=method,
        training=_training(reader, model, method, quantization, launch),
        learning_rate=arguments.learning_rate(reader, 2e-5),
        job=arguments.job(reader, "instruction"),
        gpus=launch.gpus,
        sharding=launch.sharding,
        notes=(*method_notes, *sharding_notes, *_notes(reader, quantization)),
        traced=(*reader.traced, *(beside(peft) if peft else ())),
        unknown=reader.unknown({*ignored.ARGUMENTS, *ASIDE}),
    )


def _training(
    reader: Reader, model: str, method: MethodSpec, kept: Quantization, launch: Launch
) -> TrainingSpec:
    return TrainingSpec(
        **arguments.batch(reader),
        **_lengths(reader),
        **_precision(reader, model, launch.precision),
        quantization=kept,
        kbit_preparation=_preparation(reader, kept),
        optimizer=arguments.optimizer(reader),
        gradient_checkpointing=_checkpointing(reader, method, launch.sharding),
        attention=reader.take("attention", "attn_implementation", one_of(ATTENTION), "sdpa"),
        max_grad_norm=arguments.clipping(reader),
        loss=_loss(reader),
        loop="trainer",
    )


def _refuse(reader: Reader) -> None:
    other = next((key for key in OTHER_TRAINERS if reader.has(key)), None)
    if other is not None:
        raise UsageError(
            f"{reader.file}: '{other}' is a key of TRL's trainers for preferences, rewards or "
            "distillation; runs of two models or on pairs are not predicted, only trl sft is"
        )
    for key, reason in REFUSED.items():
        found = reader.peek(key)
        if found:
            raise UsageError(f"{reader.file}: '{key}' is {shown(found)}; {reason}")


def _quantization(reader: Reader) -> Quantization:
    """``load_in_4bit`` without nested quantization unless asked for, or ``load_in_8bit``."""
    keys = ("load_in_4bit", "load_in_8bit")
    on = [key for key in keys if reader.understood(key, reader.peek(key, False), switch)]
    if len(on) > 1:
        raise UsageError(f"{reader.file}: {' and '.join(keys)} are both true; keep one of them")
    nested = reader.understood(
        "use_bnb_nested_quant", reader.peek("use_bnb_nested_quant", False), switch
    )
    kind = reader.peek("bnb_4bit_quant_type", "nf4")
    reader.understood("bnb_4bit_quant_type", kind, one_of({"nf4": "nf4", "fp4": "nf4"}))
    value: Quantization = "none"
    if on == ["load_in_4bit"]:
        value = "nf4-dq" if nested else "nf4"
    elif on:
        value = "int8"
    source = f"{on[0]}: true" if on else f"default of {reader.defaults_of}"
    if value.startswith("nf4"):
        source += f", use_bnb_nested_quant: {shown(nested)}"
    reader.note("quantization", value, on[0] if on else None, source)
    return value


def _preparation(reader: Reader, quantization: Quantization) -> KbitPreparation:
    if quantization == "none":
        return TrainingSpec().kbit_preparation
    reader.note("kbit_preparation", "none", None, f"{reader.defaults_of} leaves the base as it is")
    return "none"


def _adapter(reader: Reader, folder: Path) -> Reader | None:
    """The adapter's config beside a saved SFTConfig, which knows neither model nor method."""
    found = None if reader.has("model_name_or_path") else adapter_beside(folder)
    return None if found is None else Reader(found.values, one_line(found.path), PEFT)


def _model(reader: Reader, peft: Reader | None) -> str:
    if peft is not None:
        return arguments.model(peft, "base_model_name_or_path")
    return arguments.model(reader)


def _method(
    reader: Reader, peft: Reader | None, model: str, quantization: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    if peft is not None:
        return method_in(peft, model, quantization)
    spec, notes = _configured(reader, model, quantization)
    reader.note("method", spec.name, "use_peft", "use_peft and what goes with it")
    return spec, notes


def _configured(
    reader: Reader, model: str, quantization: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    if not reader.take("use_peft", "use_peft", switch, False):
        if quantization != "none":
            raise UsageError(f"{reader.file}: a quantized model needs 'use_peft: true'")
        unused = [key for key in ("lora_r", "lora_target_modules") if reader.has(key)]
        notes = (f"{unused[0]} is without effect, as use_peft is not true",) if unused else ()
        return method_of("full", {}), notes
    settings = {
        "rank": reader.take("rank", "lora_r", whole, 16),
        "alpha": reader.take("alpha", "lora_alpha", figure, figure(32)),
        "dropout": reader.take("dropout", "lora_dropout", amount, 0.05),
        "target_modules": _targets(reader, model),
    }
    switched: dict[str, dict[str, Any]] = {
        name: {}
        for name in ("dora", "rslora")
        if reader.take(f"use_{name}", f"use_{name}", switch, False)
    }
    return lora_of(switched, settings, quantization)


def _targets(reader: Reader, model: str) -> Any:
    """A list, of which one alone may be a pattern or ``all-linear``."""
    found = target_modules(reader, model, "lora_target_modules")
    return found[0] if isinstance(found, tuple) and len(found) == 1 and "*" in found[0] else found


def _launch(reader: Reader, folder: Path) -> tuple[Launch, tuple[str, ...]]:
    """GPUs and their division: accelerate's config, else deepspeed and fsdp of the arguments."""
    sharding, notes = arguments.division(reader, folder)
    named = reader.peek("accelerate_config")
    launch = Launch(gpus=None, sharding=sharding, precision=None)
    source = f"accelerate_config: {shown(named)}"
    if named is not None:
        launch = launch_of(named, folder, reader.file)
        notes = (*notes, *launch.notes)
    if launch.sharding != "ddp" and named is not None:
        sharding = launch.sharding
        reader.note("sharding", sharding, "accelerate_config", source)
    why = source if launch.gpus else "not said"
    gpus = reader.take("gpus", "num_processes", whole, launch.gpus, why)
    precision = launch.precision
    if reader.has("mixed_precision"):
        said = reader.peek("mixed_precision")
        precision = reader.understood("mixed_precision", said, one_of({**DTYPES, "no": None}))
    return Launch(gpus=gpus, sharding=sharding, precision=precision), notes


def _lengths(reader: Reader) -> dict[str, Any]:
    key = arguments.spelled(reader, "max_length", "max_seq_length")
    if key == "max_length" and "max_length" in reader.values and not reader.has("max_length"):
        raise UsageError(
            f"{reader.file}: 'max_length' is null, which leaves examples at full length; write "
            "the length to predict for"
        )
    packs = {
        name: reader.understood(name, reader.peek(name, False), switch)
        for name in ("packing", "padding_free")
    }
    on = next((name for name, value in packs.items() if value), None)
    said = on or next((name for name in packs if reader.has(name)), None)
    source = f"{said}: {shown(packs[said])}" if said else f"default of {reader.defaults_of}"
    seq_len = reader.take("seq_len", key, whole, 1024)
    reader.note("padded", on is None, said, source)
    return {"seq_len": seq_len, "padded": on is None}


def _precision(reader: Reader, model: str, launched: DType | None) -> dict[str, Any]:
    """Weights in fp32 unless told otherwise; bf16 autocast unless switched off everywhere."""
    low = arguments.autocast(reader, "bf16")
    if low is None and launched is not None:
        reader.note("amp", True, None, f"accelerate's mixed_precision: {launched}")
    options = arguments.mapping_at(reader, "model_init_kwargs")
    inner = next((key for key in ("dtype", "torch_dtype") if key in options), None)
    key = arguments.spelled(reader, "dtype", "torch_dtype")
    found = reader.peek(key, "float32") if inner is None else options[inner]
    if inner is not None:
        key = f"model_init_kwargs.{inner}"
    said = inner is not None or reader.has(key)
    source = f"{key}: {shown(found)}" if said else f"default of {reader.defaults_of}"
    if str(found).lower() == "auto":
        dtype, why = weights_dtype(model)
        source = f"{source}, {why}"
    else:
        dtype = reader.understood(key, found, _dtype)
    reader.note("dtype", dtype, key if said else None, source)
    return {"dtype": dtype, "amp": bool(low or launched)}


def _dtype(value: Any) -> DType:
    return one_of(DTYPES)(str(value).removeprefix("torch."))


def _checkpointing(reader: Reader, method: MethodSpec, sharding: Sharding) -> Checkpointing:
    """On by default; reentrant under PEFT with ZeRO-3, whatever is said."""
    found = arguments.checkpointing(reader, on=True)
    if found == "non-reentrant" and sharding == "zero-3" and method.name != "full":
        text = f"{reader.defaults_of} makes it reentrant for PEFT with ZeRO-3"
        reader.note("gradient_checkpointing", "reentrant", None, text)
        return "reentrant"
    return found


def _loss(reader: Reader) -> Loss:
    """In chunks by the head, so that logits never exist as a whole, unless labels are smoothed."""
    smoothed = reader.understood(
        "label_smoothing_factor", reader.peek("label_smoothing_factor", 0), amount
    )
    if smoothed:
        reader.note("loss", "torch", "label_smoothing_factor", f"label smoothing of {smoothed}")
        return "torch"
    reader.note("loss", "fused-linear", None, f"{reader.defaults_of} makes the loss in chunks")
    return "fused-linear"


def _notes(reader: Reader, quantization: Quantization) -> tuple[str, ...]:
    found = list(ignored.notes(reader, LEFT_OUT))
    found += [f"{old} is an earlier name of {new}" for old, new in NAMES.items() if reader.has(old)]
    if quantization != "none":
        found.append("adapters of a quantized base are trained in bf16, and predicted in fp32")
    return tuple(found)


TOOL = Tool(name="trl", title="TRL", marks=marks, read=read, edits=edits_by(EDITS))
