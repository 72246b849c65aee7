"""A run as the command line that estimates it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from peftadvisor.data.gpus import load_gpus
from peftadvisor.methods import find_method
from peftadvisor.specs import RunSpec, TrainingSpec

_OPTIONS = {
    "micro_batch_size": "--batch-size",
    "gradient_accumulation_steps": "--grad-accum",
    "target_len": "--target-len",
    "dtype": "--dtype",
    "attention": "--attention",
    "optimizer": "--optimizer",
    "gradient_checkpointing": "--gradient-checkpointing",
    "loss": "--loss",
    "loop": "--loop",
    "transformers": "--transformers",
    "kbit_preparation": "--kbit-preparation",
}
"""Training settings that have an option with a value and a default of its own."""
_SETTINGS = ("rank", "alpha", "dropout")
_ALL_LINEAR = "all-linear"


def estimate_command(run: RunSpec) -> str:
    """``peftadvisor estimate ...`` for a shell, which describes this run.

    ``max_grad_norm`` is left out: there is no option for it.
    """
    words = ["peftadvisor", "estimate", *_what(run), *_method(run), *_training(run)]
    return " ".join(map(shlex.quote, words))


def _what(run: RunSpec) -> Iterator[str]:
    yield from ("--model", run.model.id, "--gpu", run.gpu.id)
    if load_gpus().get(run.gpu.id) != run.gpu:
        yield from ("--gpu-memory", f"{run.gpu.usable_bytes}B")
    if run.gpus != 1:
        yield from ("--gpus", str(run.gpus))
    if run.sharding != "ddp":
        yield from ("--sharding", run.sharding)


def _method(run: RunSpec) -> Iterator[str]:
    yield from ("--method", run.method.name)
    for name, value in run.method.settings:
        if name in _SETTINGS and _is_amount(value):
            yield from (f"--{name}", json.dumps(value))
        elif name == "target_modules" and _is_listed(value):
            yield from ("--target-modules", value if isinstance(value, str) else ",".join(value))
        else:
            yield from ("--set", f"{name}={_text(value)}")


def _is_amount(value: Any) -> bool:
    """Whether an option takes it: a positive number, as whole as it is read back."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return number and (isinstance(value, int) or not value.is_integer())


def _is_listed(value: Any) -> bool:
    """Whether a list of names after one option means the same."""
    if isinstance(value, str):
        return value == _ALL_LINEAR
    names = value if isinstance(value, tuple) else ()
    plain = all(isinstance(n, str) and n and n == n.strip() and "," not in n for n in names)
    return bool(names) and plain and names != (_ALL_LINEAR,)


def _text(value: Any) -> str:
    """A setting's value: bare text where that is not read as something else, JSON elsewhere."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return value
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _training(run: RunSpec) -> Iterator[str]:
    training, usual = run.training, TrainingSpec()
    yield from ("--seq-len", str(training.seq_len))
    for name, option in _OPTIONS.items():
        value = getattr(training, name)
        if value != getattr(usual, name):
            yield from (option, str(value))
    if training.quantization != (find_method(run.method.name).quantization or "none"):
        yield from ("--quantization", training.quantization)
    if training.padded:
        yield "--padded"
    if training.amp:
        yield "--amp"
