"""Published measurements as runs: a row becomes a RunSpec and what was measured, or a reason.

A row must say what memory and time depend on; what it does not say is not guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftadvisor.cost_model.accuracy import Quantity
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.measurements import Measurement
from peftadvisor.data.models import find_model
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.integrations.published_limits import (
    RAN_OUT,
    SHARDINGS,
    fused_elementwise,
    limit_of,
)
from peftadvisor.integrations.published_methods import method_name, method_spec
from peftadvisor.integrations.published_sources import (
    batch_length,
    convention,
    step_seconds,
    target_length,
    timed_length,
    transformers_version,
)
from peftadvisor.specs import GpuSpec, ModelSpec, RunSpec, TrainingSpec

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_OPTIMIZERS = {
    "AdamW": "adamw",
    "torch.optim.AdamW": "adamw",
    "adamw_torch": "adamw",
    "lora-fa": "adamw",  # the method brings its own
    "adamw_8bit": "adamw-8bit",
}
_ATTENTION = {
    "": "sdpa",  # what transformers takes
    "transformers default": "sdpa",
    "torch SDPA": "sdpa",
}
_PADDED = {
    "packed": False,
    "none": False,
    "full sequences": False,
    "padded": True,
    "pad-to-longest-in-batch": True,
    "pad-to-longest-in-batch, bucketed": True,
}
_AMP = {"no autocast": False, "bf16 autocast": True, "fp16 autocast": True, "autocast": True}
_MEMORY_KINDS: tuple[tuple[str, Quantity], ...] = (
    ("max_memory_allocated", "allocated"),
    ("allocated", "allocated"),
    ("max_memory_reserved", "reserved"),
    ("max reserved", "reserved"),
    ("nvidia-smi", "device"),
)
_STATED = (
    "model",
    "gpu",
    "micro_batch_size",
    "grad_accum",
    "weights_dtype",
    "compute_dtype",
    "quantization",
    "optimizer",
    "gradient_checkpointing",
    "padding_packing",
)
_MODEL_ALIASES = {
    # checkpoints quantized by others, of the same shape
    "TheBloke/Mistral-7B-v0.1-GPTQ": "mistralai/Mistral-7B-v0.1",
    "TheBloke/Mixtral-8x7B-Instruct-v0.1-GPTQ": "mistralai/Mixtral-8x7B-Instruct-v0.1",
}
_GPU_ALIASES = {
    # NVIDIA's DGX-H100 holds the SXM cards
    "NVIDIA H100 80GB (DGX-H100)": "h100-sxm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A row as a run. ``timed`` is the run whose steps were timed, where their batches differ.

    ``left_on_cpu_bytes`` is what the simulation has on the GPU and this run had not.
    """

    run: RunSpec
    timed: RunSpec
    measured: Mapping[Quantity, float] = field(hash=False)
    ran_out: bool
    left_on_cpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a row cannot be a run."""

    reason: str


def as_run(row: Measurement) -> Published | Skipped:
    """The run that a row describes, or why there is none."""
    reason = limit_of(row)
    if reason:
        return Skipped(reason)
    try:
        return _published(row)
    except UsageError as error:
        return Skipped(str(error))


def gpu_name(row: Measurement) -> str:
    """Our id of a row's GPU, or the row's own name where we have none."""
    try:
        return _gpu(row).id
    except UsageError:
        return row.gpu or "not stated"


def _published(row: Measurement) -> Published:
    for column in _STATED:
        if getattr(row, column) in ("", None):
            raise UsageError(f"{column} is not stated")
    length = batch_length(row)
    if length is None:
        raise UsageError("seq_len is not stated")
    model = _model(row)
    run = RunSpec(
        model=model,
        method=method_spec(row, model),
        training=_training(row, length),
        gpu=_gpu(row),
        gpus=row.n_gpus or 1,
        sharding=SHARDINGS.get(row.parallelism, "ddp"),
    )
    ran_out = row.status in RAN_OUT
    measured = {} if ran_out else _measured(row, length)
    if not measured and not ran_out:
        raise UsageError("nothing that is predicted was measured")
    return Published(
        run=run,
        timed=_with_length(run, timed_length(row) or length),
        measured=measured,
        ran_out=ran_out,
        left_on_cpu_bytes=convention(row).left_on_cpu_bytes.get(run.method.name, 0),
    )


def _model(row: Measurement) -> ModelSpec:
    try:
        model = find_model(_MODEL_ALIASES.get(row.model, row.model))
    except UnknownNameError:
        raise UsageError(f"model '{row.model}' is not bundled") from None
    if "text_config" in model.config or "vision_config" in model.config:
        raise UsageError("the model takes more than text")
    if model.config.get("is_encoder_decoder") and target_length(row) is None:
        raise UsageError("target length of an encoder-decoder is not stated")
    return model


def _gpu(row: Measurement) -> GpuSpec:
    name = _GPU_ALIASES.get(row.gpu, row.gpu)
    try:
        return find_gpu(name)
    except UnknownNameError:
        raise UsageError(f"GPU '{row.gpu}' is not in the catalog") from None
    except UsageError:
        raise UsageError(f"GPU '{row.gpu}' is ambiguous") from None


def _training(row: Measurement, length: int) -> TrainingSpec:
    rule = convention(row)
    framework = str(row.method_config.get("framework_config", ""))
    sharded = row.parallelism in SHARDINGS
    values: dict[str, Any] = {
        "micro_batch_size": row.micro_batch_size,
        "gradient_accumulation_steps": row.grad_accum,
        "seq_len": length,
        "target_len": target_length(row) or TrainingSpec().target_len,
        "padded": _one_of(_PADDED, row.padding_packing, "padding_packing"),
        "dtype": _plain(_DTYPES, row.weights_dtype),
        "amp": _amp(row),
        "quantization": {"nf4": rule.nf4, "gptq-int4": "gptq"}.get(
            row.quantization, row.quantization
        ),
        "optimizer": _plain(_OPTIMIZERS, row.optimizer),
        "gradient_checkpointing": (
            rule.checkpointing
            if row.gradient_checkpointing == "full"
            else row.gradient_checkpointing
        ),
        "attention": _plain(_ATTENTION, row.attention),
        "transformers": transformers_version(row),
        **rule.training,
        **rule.by_framework.get(framework, {}),
        **(rule.sharded_base if sharded and row.quantization != "none" else {}),
    }
    return TrainingSpec(**values)


def _plain(words: Mapping[str, str], text: str) -> str:
    """Our word for a text, remarks in brackets aside; a word that is ours stays."""
    short = text.partition(" (")[0]
    return words.get(short, short)


def _amp(row: Measurement) -> bool:
    text = row.compute_dtype.partition(" (")[0].partition(";")[0]
    if text in (row.weights_dtype, _plain(_DTYPES, row.weights_dtype)):
        return False
    return _one_of(_AMP, text, "compute_dtype")


def _one_of(words: Mapping[str, bool], text: str, column: str) -> bool:
    if text not in words:
        raise UsageError(f"{column} '{text}' is not known")
    return words[text]


def _measured(row: Measurement, length: int) -> dict[Quantity, float]:
    found: dict[Quantity, float | None] = {
        "allocated": row.peak_allocated_bytes,
        "reserved": row.peak_reserved_bytes,
        "device": row.nvidia_smi_bytes,
        "step": None if fused_elementwise(row) else step_seconds(row, length),
    }
    for start, quantity in _MEMORY_KINDS:
        if row.memory_kind.startswith(start):
            found[quantity] = found[quantity] or row.peak_memory_bytes
    return {quantity: value for quantity, value in found.items() if value}


def _with_length(run: RunSpec, length: int) -> RunSpec:
    training = dataclasses.replace(run.training, seq_len=length)
    return dataclasses.replace(run, training=training)


__all__ = ["Published", "Skipped", "as_run", "gpu_name", "method_name"]
