"""What transformers' ``TrainingArguments`` mean, as LLaMA-Factory, TRL and scripts share them.

Read in transformers 5.23 (``training_args.py``, ``trainer.py``, ``modeling_utils.py``). Each
function takes its keys from a reader and gives settings of ``TrainingSpec`` by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.deepspeed import sharding_of
from peftadvisor.integrations.configs.fsdp import fsdp_of
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    one_of,
    shown,
    switch,
    text,
    whole,
)
from peftadvisor.specs import Checkpointing, DType, Job, Loss, Optimizer, Sharding, Task

OPTIM: Mapping[str, Optimizer] = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw-fused",
    "adamw_bnb_8bit": "adamw-8bit",
    "adamw_8bit": "adamw-8bit",
    "paged_adamw_8bit": "paged-adamw-8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""Our optimizers by the names of ``TrainingArguments.optim``."""
FSDP_CHECKPOINTING = "fsdp_config.activation_checkpointing"
DEFAULT_OPTIM = "adamw_torch_fused"
DEFAULT_RATE, DEFAULT_EPOCHS = 5e-5, 3.0
_BY_CHECKPOINTING: Mapping[bool, Checkpointing] = {True: "reentrant", False: "non-reentrant"}


def spelled(reader: Reader, *names: str) -> str:
    """The spelling of a key that the file has; the first one, of today, where it has none."""
    return next((name for name in names if reader.has(name)), names[0])


def mapping_at(reader: Reader, key: str) -> Mapping[str, Any]:
    """A mapping, also as a text of JSON; empty where the key is left out.

    Raises:
        UsageError: something else stands there.
    """
    found = reader.peek(key, {})
    if isinstance(found, str) and found.lstrip().startswith("{"):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, Mapping):
        raise UsageError(f"{reader.file}: '{key}' is {shown(reader.peek(key))}; write a mapping")
    return found


def model(reader: Reader, key: str = "model_name_or_path") -> str:
    """The model that a key names.

    Raises:
        UsageError: there is none.
    """
    if not reader.has(key):
        raise UsageError(f"{reader.file} has no '{key}'; name the model there")
    return reader.take("model", key, text, "")


def batch(reader: Reader, default: int = 8) -> dict[str, Any]:
    """Examples per GPU and pass, and passes per step."""
    key = spelled(reader, "per_device_train_batch_size", "per_gpu_train_batch_size")
    return {
        "micro_batch_size": reader.take("micro_batch_size", key, whole, default),
        "gradient_accumulation_steps": reader.take(
            "gradient_accumulation_steps", "gradient_accumulation_steps", whole, 1
        ),
    }


def optimizer(reader: Reader) -> Optimizer:
    """The optimizer of ``optim``.

    Raises:
        UsageError: it is one that is not predicted; those that are, are named.
    """
    return reader.take("optimizer", "optim", one_of(OPTIM), OPTIM[DEFAULT_OPTIM])


def clipping(reader: Reader) -> float:
    """The norm that gradients are clipped to, 0 for none."""
    return reader.take("max_grad_norm", "max_grad_norm", amount, 1.0)


def learning_rate(reader: Reader, default: float = DEFAULT_RATE) -> float:
    """The learning rate."""
    return reader.take("learning_rate", "learning_rate", amount, default)


def job(reader: Reader, task: Task | None) -> Job:
    """How long is trained: ``max_steps`` where it is positive, else epochs.

    Raises:
        UsageError: one of them is no number.
    """
    steps = reader.peek("max_steps")
    if steps is not None and reader.understood("max_steps", steps, _count) > 0:
        reader.peek("num_train_epochs")
        return Job(task=task, steps=reader.take("steps", "max_steps", whole, 1))
    epochs = reader.take("epochs", "num_train_epochs", amount, DEFAULT_EPOCHS)
    return Job(task=task, epochs=epochs or None)


def _count(value: Any) -> int:
    """A whole number that may be -1, for none."""
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("write a whole number, or -1 for none") from None


def checkpointing(reader: Reader, on: bool) -> Checkpointing:
    """``gradient_checkpointing``, lately also ``activation_checkpointing``, or FSDP's own.

    Raises:
        UsageError: a value that is no switch.
    """
    key = spelled(reader, "activation_checkpointing", "gradient_checkpointing")
    found = reader.peek(key)
    active = on if found is None else reader.understood(key, found, switch)
    source = f"default of {reader.defaults_of}" if found is None else f"{key}: {shown(found)}"
    sharded = mapping_at(reader, "fsdp_config") if reader.peek("fsdp") else {}
    if sharded.get("activation_checkpointing"):
        key, source = FSDP_CHECKPOINTING, f"{FSDP_CHECKPOINTING}: true"
        found, active = reader.peek("fsdp_config"), True
    more = spelled(reader, "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")
    options = mapping_at(reader, more)
    reentrant = reader.understood(f"{more}.use_reentrant", options.get("use_reentrant", 0), switch)
    if active and "use_reentrant" in options:
        key, found = f"{more}.use_reentrant", reentrant
        source = f"{source}, use_reentrant: {shown(reentrant)}"
    value: Checkpointing = _BY_CHECKPOINTING[reentrant] if active else "none"
    reader.note("gradient_checkpointing", value, None if found is None else key, source)
    return value


def autocast(reader: Reader, default: DType | None = None) -> DType | None:
    """The dtype of mixed precision, None for none.

    Raises:
        UsageError: both dtypes are asked for.
    """
    said = {name: reader.peek(name) for name in ("bf16", "fp16")}
    on = {n: reader.understood(n, v, switch) for n, v in said.items() if v is not None}
    if on.get("bf16") and on.get("fp16"):
        raise UsageError(f"{reader.file}: 'bf16' and 'fp16' are both true; keep one of them")
    active = next((name for name, value in on.items() if value), None)
    if active is None and (default is None or on.get(default) is False):
        key = next(iter(on), None)
        source = f"default of {reader.defaults_of}" if key is None else f"{key}: false"
        reader.note("amp", False, key, source)
        return None
    if active is None:
        reader.note("amp", True, None, f"default of {reader.defaults_of}: {default}")
        return default
    reader.note("amp", True, active, f"{active}: {shown(said[active])}")
    return "bf16" if active == "bf16" else "fp16"


def liger(reader: Reader, key: str, patched: bool, kernels: str | None = None) -> Loss:
    """The loss under Liger: fused with the head unless its config says otherwise.

    ``patched`` says whether Liger knows the model; one that it does not stays as it is.
    """
    found = reader.peek(key)
    if found is None or not reader.understood(key, found, switch):
        source = f"default of {reader.defaults_of}" if found is None else f"{key}: {shown(found)}"
        reader.note("loss", "torch", None if found is None else key, source)
        return "torch"
    chosen = mapping_at(reader, kernels) if kernels else {}
    alone = chosen.get("cross_entropy", False)
    loss: Loss = "fused" if alone else "torch"
    if chosen.get("fused_linear_cross_entropy", not alone):
        loss = "fused-linear"
    source = f"{key}: true" + (f", {kernels}: {shown(dict(chosen))}" if chosen else "")
    if not patched:
        loss, source = "torch", f"{source}, which Liger has no kernels for in this model"
    reader.note("loss", loss, key, source)
    return loss


def division(reader: Reader, folder: Path) -> tuple[Sharding, tuple[str, ...]]:
    """How several GPUs divide the run: ``deepspeed`` or ``fsdp``, else plain data parallel.

    Raises:
        UsageError: a config of theirs that cannot be read.
    """
    found, options = reader.peek("deepspeed"), mapping_at(reader, "fsdp_config")
    if found:
        inline = isinstance(found, Mapping) or str(found).lstrip().startswith("{")
        config = mapping_at(reader, "deepspeed") if inline else found
        sharding, notes = sharding_of(config, folder, reader.file)
        reader.note("sharding", sharding, "deepspeed", f"deepspeed: {shown(found)}")
        return sharding, notes
    asked = reader.peek("fsdp")
    if asked:
        sharding, notes = fsdp_of(asked, options, reader.file)
        reader.note("sharding", sharding, "fsdp", f"fsdp: {shown(asked)}")
        return sharding, notes
    reader.note("sharding", "ddp", None, f"default of {reader.defaults_of}")
    return "ddp", ()


_SIGNS = frozenset(
    {"per_device_train_batch_size", "per_device_eval_batch_size", "num_train_epochs", "optim"}
    | {"lr_scheduler_type", "logging_strategy", "do_train", "overwrite_output_dir", "report_to"}
)


def marks(values: Mapping[str, Any]) -> int:
    """Signs of TrainingArguments, whichever tool adds its own keys."""
    return sum(key in values for key in _SIGNS)
