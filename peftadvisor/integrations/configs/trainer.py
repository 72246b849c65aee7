"""transformers' ``TrainingArguments`` as JSON, with PEFT's ``adapter_config.json`` beside it.

Read in transformers 5.23 and PEFT 0.21. Neither file says how long examples are, or how the
script loads the model: what is assumed in their stead is traced and noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs import arguments, ignored, trl
from peftadvisor.integrations.configs.checkpoints import is_gptq, weights_dtype
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.method import method_of
from peftadvisor.integrations.configs.optim import low_rank_of
from peftadvisor.integrations.configs.peft_config import (
    NAME,
    PEFT,
    adapter_beside,
    beside,
    method_in,
    quantized_by,
    unknown,
)
from peftadvisor.integrations.configs.reader import Reader, whole
from peftadvisor.integrations.configs.trainer_edits import edits, has_liger
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool, Traced
from peftadvisor.specs import MethodSpec, Optimizer, Quantization, Task, TrainingSpec

VERSION = "5.23.0"
_BESIDE = ("training_args.json", "trainer_config.json", "training_arguments.json", "config.json")
_MODEL_KEYS = ("model_name_or_path", "base_model_name_or_path", "model_name", "model_id")
_LENGTHS = ("max_seq_length", "max_length", "model_max_length")
_TASKS: Mapping[str, Task] = {"SEQ_CLS": "classification", "TOKEN_CLS": "classification"}
_TARGETED = ("optim_target_modules is taken to be all linear layers",)
_NO_LENGTH = "the length of examples is not in the file: 512 tokens are assumed"


def marks(values: Mapping[str, Any]) -> int:
    """Signs of TrainingArguments, or of an adapter's config."""
    return 3 if "peft_type" in values else arguments.marks(values)


def read(file: ConfigFile) -> ReadConfig:
    """The run that the arguments and the adapter's config describe.

    Raises:
        UsageError: one of the two is missing and needed, or says what is not predicted.
    """
    given, adapter = _pair(file)
    reader = Reader(given.values, one_line(given.path), f"transformers {VERSION}")
    peft = None
    if adapter is not None:
        peft = Reader(adapter.values, one_line(adapter.path), PEFT)
    model = _model(reader, peft)
    quantization = _quantization(reader, peft, model)
    method, optimizer, method_notes = _method(reader, peft, model, quantization)
    sharding, sharding_notes = arguments.division(reader, Path(given.path).parent)
    length = () if any(map(reader.has, _LENGTHS)) else (_NO_LENGTH,)
    notes = (*method_notes, *sharding_notes, *length, *ignored.notes(reader, {}))
    return ReadConfig(
        tool="trainer",
        version=VERSION,
        model=model,
        method=method,
        training=_training(reader, model, quantization, optimizer),
        learning_rate=arguments.learning_rate(reader),
        job=arguments.job(reader, _task(peft)),
        gpus=None,
        sharding=sharding,
        notes=notes,
        traced=_traced(reader, peft, given is file),
        unknown=_unknown(reader, peft),
    )


def _training(
    reader: Reader, model: str, quantization: Quantization, optimizer: Optimizer
) -> TrainingSpec:
    return TrainingSpec(
        **arguments.batch(reader),
        **_lengths(reader),
        **_precision(reader, model),
        quantization=quantization,
        kbit_preparation="peft",
        optimizer=optimizer,
        gradient_checkpointing=arguments.checkpointing(reader, on=False),
        max_grad_norm=arguments.clipping(reader),
        loss=arguments.liger(reader, "use_liger_kernel", has_liger(model), "liger_kernel_config"),
        loop="trainer",
    )


def _pair(file: ConfigFile) -> tuple[ConfigFile, ConfigFile | None]:
    """The training arguments and the adapter's config, whichever of them was passed."""
    folder = Path(file.path).parent
    if "peft_type" not in file.values:
        return file, adapter_beside(folder)
    found = _arguments_beside(folder)
    if found is None:
        raise UsageError(
            f"{one_line(file.path)} is an adapter's config, and no training arguments lie beside "
            f"it; save them there as {_BESIDE[0]} (TrainingArguments.to_json_string())"
        )
    if trl.marks(found.values):
        raise UsageError(
            f"{one_line(file.path)} is an adapter's config, and the arguments beside it are TRL's; "
            f"pass {one_line(found.path)}"
        )
    return found, file


def _arguments_beside(folder: Path) -> ConfigFile | None:
    for path in (folder / name for name in _BESIDE):
        found = read_config_file(path) if path.is_file() else None
        if found is not None and arguments.marks(found.values):
            return found
    return None


def _model(reader: Reader, peft: Reader | None) -> str:
    """The adapter's base model, else one that the arguments were extended by."""
    if peft is not None and peft.has("base_model_name_or_path"):
        return arguments.model(peft, "base_model_name_or_path")
    key = next((key for key in _MODEL_KEYS if reader.has(key)), None)
    if key is not None:
        return arguments.model(reader, key)
    raise UsageError(
        f"{reader.file} names no model; put the {NAME} of the run beside it, or name the model "
        f"that is trained whole by '{_MODEL_KEYS[0]}'"
    )


def _quantization(reader: Reader, peft: Reader | None, model: str) -> Quantization:
    if is_gptq(model):
        reader.note("quantization", "gptq", None, f"the config of {model}")
        return "gptq"
    found: Quantization = "none" if peft is None else quantized_by(peft)
    said = found != "none"
    source = "init_lora_weights: loftq" if said else "assumed, as the arguments do not say"
    reader.note("quantization", found, "init_lora_weights" if said else None, source)
    return found


def _method(
    reader: Reader, peft: Reader | None, model: str, quantization: Quantization
) -> tuple[MethodSpec, Optimizer, tuple[str, ...]]:
    if peft is not None:
        method, notes = method_in(peft, model, quantization)
        return method, arguments.optimizer(reader), notes
    low_rank = low_rank_of(reader)
    if low_rank is not None:
        reader.note("method", low_rank.name, "optim", f"optim: {reader.peek('optim')}")
        return low_rank, "adamw", _TARGETED if reader.has("optim_target_modules") else ()
    reader.note("method", "full", None, f"no {NAME} lies beside {reader.file}")
    return method_of("full", {}), arguments.optimizer(reader), ()


def _lengths(reader: Reader) -> dict[str, Any]:
    key = arguments.spelled(reader, *_LENGTHS)
    seq_len = reader.take("seq_len", key, whole, 512, "assumed, as the arguments do not say")
    reader.note("padded", True, None, "assumed: transformers' collators pad to the longest")
    return {"seq_len": seq_len, "padded": True}


def _precision(reader: Reader, model: str) -> dict[str, Any]:
    """Autocast as asked for, over weights in the dtype of the checkpoint."""
    low = arguments.autocast(reader)
    dtype, source = weights_dtype(model)
    reader.note("dtype", dtype, None, f"{source}; transformers 5 keeps it")
    return {"dtype": dtype, "amp": low is not None}


def _task(peft: Reader | None) -> Task | None:
    """What the adapter's config says of the task; text that is generated may be anything."""
    if peft is None:
        return None
    said = str(peft.peek("task_type"))
    if said in _TASKS:
        peft.note("task", _TASKS[said], "task_type", f"task_type: {said}")
    return _TASKS.get(said)


def _traced(reader: Reader, peft: Reader | None, arguments_passed: bool) -> tuple[Traced, ...]:
    """Traces of both files; keys are those of the file that was passed."""
    if peft is None:
        return tuple(reader.traced)
    if arguments_passed:
        return (*reader.traced, *beside(peft))
    return (*beside(reader), *peft.traced)


def _unknown(reader: Reader, peft: Reader | None) -> tuple[str, ...]:
    beside = () if peft is None else tuple(f"{NAME}: {key}" for key in unknown(peft))
    found = reader.unknown(ignored.ARGUMENTS)
    return (*(key for key in found if reader.peek(key) is not None), *beside)


TOOL = Tool(name="trainer", title="transformers' Trainer", marks=marks, read=read, edits=edits)
