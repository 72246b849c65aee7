"""torchtune: the YAML that ``tune run`` reads. Read in torchtune 0.6.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    one_of,
    shown,
    switch,
    whole,
)
from peftadvisor.integrations.configs.torchtune_edits import edits
from peftadvisor.integrations.configs.torchtune_keys import (
    ASSUMED_LENGTH,
    IGNORED,
    LEFT_OUT,
    LOSSES,
    PREFIXES,
    REFUSED,
    REQUIRED,
    TASKS,
    VERSION,
    optimizer_of,
)
from peftadvisor.integrations.configs.torchtune_method import read_method
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.specs import (
    Checkpointing,
    DType,
    Job,
    KbitPreparation,
    Optimizer,
    Quantization,
    Sharding,
    TrainingSpec,
)

_DTYPES: Mapping[str, DType] = {"bf16": "bf16", "fp32": "fp32"}
_COMPONENTS = ("model", "optimizer", "loss")
_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")


def marks(values: Mapping[str, Any]) -> int:
    """How many parts are named as components of torchtune."""
    parts = [part for part in values.values() if isinstance(part, Mapping)]
    return sum(str(part.get("_component_", "")).startswith("torchtune.") for part in parts)


def read(file: ConfigFile) -> ReadConfig:
    """The run that the recipes of fine-tuning would start.

    Raises:
        UsageError: a value that is none, a key that torchtune needs, an unknown component, or a
            run that is not predicted.
    """
    values, referred = resolved(file.values)
    reader = Reader(values, file.path, f"torchtune {VERSION}")
    for key in referred:
        reader.peek(key)
    _require_fine_tuning(reader)
    model, method, quantization, notes = read_method(reader)
    training = _training(reader, quantization)
    gpus, sharding = _sharding(reader)
    job, rate = _job(reader), _rate(reader)
    told = tuple(dict.fromkeys((*notes, *_notes(reader))))
    return ReadConfig(
        tool="torchtune",
        version=VERSION,
        model=model,
        method=method,
        training=training,
        job=job,
        learning_rate=rate,
        gpus=gpus,
        sharding=sharding,
        unknown=reader.unknown(IGNORED, PREFIXES),
        traced=tuple(reader.traced),
        notes=told,
    )


def _training(reader: Reader, quantization: Quantization) -> TrainingSpec:
    preparation: KbitPreparation = "peft" if quantization == "none" else "none"
    _note_fixed(reader, preparation)
    steps, packed = "gradient_accumulation_steps", _packed_rows(reader)
    return TrainingSpec(
        micro_batch_size=reader.take("micro_batch_size", "batch_size", whole, 1),
        gradient_accumulation_steps=reader.take(steps, steps, whole, 1),
        seq_len=_length(reader),
        padded=reader.take("padded", "dataset.packed", lambda v: not switch(v), not packed),
        dtype=reader.take("dtype", "dtype", one_of(_DTYPES), "fp32"),
        quantization=quantization,
        optimizer=_optimizer(reader),
        gradient_checkpointing=_checkpointing(reader),
        max_grad_norm=reader.take("max_grad_norm", "clip_grad_norm", _norm, 0.0),
        kbit_preparation=preparation,
        loss=reader.take("loss", "loss._component_", one_of(LOSSES), "torch"),
        loop="trainer",
        transformers="5",
    )


def resolved(values: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """The values with each ``${key}`` replaced by the plain value that it names, and those keys."""
    referred: set[str] = set()

    def look(match: re.Match[str]) -> str:
        here: Any = values
        for part in match[1].split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        referred.add(match[1])
        return str(here) if isinstance(here, str | int | float) else match[0]

    def through(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: through(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [through(inner) for inner in value]
        return _REFERENCE.sub(look, value) if isinstance(value, str) else value

    return {key: through(value) for key, value in values.items()}, frozenset(referred)


def _require_fine_tuning(reader: Reader) -> None:
    for key, what in REFUSED.items():
        if reader.has(key):
            raise UsageError(
                f"{reader.file}: '{key}' {what}, which is not predicted; check a config of "
                "supervised fine-tuning"
            )
    kinds = (str(reader.peek(f"{part}._component_", "")) for part in ("loss", "dataset"))
    if any("rlhf" in kind or "preference" in kind or "paired" in kind for kind in kinds):
        raise UsageError(
            f"{reader.file} learns from pairs beside a second model, which is not predicted; "
            "check a config of supervised fine-tuning"
        )
    for key in REQUIRED:
        if reader.values.get(key) is None:
            raise UsageError(f"{reader.file} lacks '{key}', which torchtune needs; add it")
    for key in _COMPONENTS:
        if not reader.has(f"{key}._component_"):
            raise UsageError(f"{reader.file}: '{key}' names no '_component_'; add it")


def _note_fixed(reader: Reader, preparation: KbitPreparation) -> None:
    """Trace what no key says: how torchtune trains whatever the file holds."""
    fixed = {"amp": False, "attention": "sdpa", "loop": "trainer", "transformers": "5"}
    for name, value in (fixed | {"kbit_preparation": preparation}).items():
        reader.note(name, value, None, f"as {reader.defaults_of} trains")


def _packed_rows(reader: Reader) -> bool:
    """Whether all of several data sets are packed; nothing is packed by default."""
    found = reader.values.get("dataset")
    if not isinstance(found, list):
        return False
    rows = [row for row in reader.peek("dataset") if isinstance(row, Mapping)]
    packed = (reader.understood("dataset", row.get("packed") or False, switch) for row in rows)
    return bool(rows) and all(packed)


def _length(reader: Reader) -> int:
    """The longest that the tokenizer lets through; an assumption, told as such, where it is null.

    Raises:
        UsageError: rows are to be packed to a length that is not there.
    """
    key = "tokenizer.max_seq_len"
    if not reader.has(key) and (
        _packed_rows(reader) or str(reader.peek("dataset.packed")).lower() == "true"
    ):
        raise UsageError(f"{reader.file} packs samples but has no '{key}'; set it")
    return reader.take("seq_len", key, whole, ASSUMED_LENGTH, "assumed: the file sets no limit")


def _optimizer(reader: Reader) -> Optimizer:
    part = {key: reader.peek(f"optimizer.{key}") for key in ("_component_", "fused", "foreach")}
    key = "optimizer._component_"
    found = reader.understood(key, part["_component_"], lambda _: optimizer_of(part))
    told = ", ".join(f"{name}: {shown(value)}" for name, value in part.items() if value is not None)
    reader.note("optimizer", found, key, told)
    return found


def _checkpointing(reader: Reader) -> Checkpointing:
    kinds: dict[bool, Checkpointing] = {True: "non-reentrant", False: "none"}
    key = "enable_activation_checkpointing"
    default: Checkpointing = "none"
    return reader.take("gradient_checkpointing", key, lambda v: kinds[switch(v)], default)


def _norm(value: Any) -> float:
    """The norm to clip at; ``inf`` is measured and never clipped at."""
    return 1e18 if str(value) in ("inf", ".inf") else amount(value)


def _rate(reader: Reader) -> float:
    if not reader.has("optimizer.lr"):
        raise UsageError(f"{reader.file} lacks 'optimizer.lr', which torchtune needs; add it")
    return reader.take("learning_rate", "optimizer.lr", amount, 0.0)


def _sharding(reader: Reader) -> tuple[int | None, Sharding]:
    """FSDP, by the recipes for several GPUs; how many there are ``tune run`` says."""
    reader.note("gpus", None, None, "tune run says how many, not the file")
    kinds: dict[bool, Sharding] = {True: "fsdp", False: "zero-2"}
    default: Sharding = "fsdp"
    key = "fsdp_reshard_after_forward"
    return None, reader.take("sharding", key, lambda v: kinds[switch(v)], default)


def _job(reader: Reader) -> Job:
    component = shown(reader.peek("dataset._component_", "")).rpartition(".")[2]
    task = TASKS.get(component, "instruction")
    reader.note("task", task, "dataset", f"dataset: {component}" if component else "dataset")
    epochs = reader.take("epochs", "epochs", whole, 1)
    key = "max_steps_per_epoch"
    if not reader.has(key):
        return Job(task=task, epochs=float(epochs))
    steps = reader.understood(key, reader.peek(key), whole)
    reader.note("steps", epochs * steps, key, f"{key}: {steps} by {epochs} epochs")
    return Job(task=task, steps=epochs * steps)


def _notes(reader: Reader) -> Iterator[str]:
    for key, text in LEFT_OUT.items():
        if str(reader.peek(key) or False).lower() not in ("false", "0", "1", "0.0"):
            yield text
    if not reader.has("tokenizer.max_seq_len"):
        yield f"the file limits no sample's length; {ASSUMED_LENGTH} tokens are assumed"
    if "ChunkedOutput" in str(reader.peek("loss._component_")):
        yield "the loss in chunks is predicted as a fused one, which needs as much memory"
    if str(reader.peek("dtype")) == "bf16" and "lora" in str(reader.peek("model._component_")):
        yield "adapters are in the dtype of the base, and are predicted in fp32"


TOOL = Tool(name="torchtune", title="torchtune", marks=marks, read=read, edits=edits)
