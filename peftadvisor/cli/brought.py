"""What the user brings to a measured run: the weights of a checkpoint, and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations import lookup
from peftadvisor.specs import ModelSpec, TrainingSpec

if TYPE_CHECKING:
    from peftadvisor.profilers.workload import Given

_OF_DATA = ("text_field", "target_field", "tokenizer")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def check(values: Mapping[str, Any]) -> None:
    """Complain about options that do not go together.

    Raises:
        UsageError: nothing is measured, or an option describes data that is not given.
    """
    for name in ("checkpoint", "data"):
        if values[name] is not None and values["engine"] == "simulate":
            raise UsageError(f"--{name} is for measured runs; use --engine measure or both")
    for name in _OF_DATA:
        if values[name] is not None and values["data"] is None:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} describes texts; give their file with --data")
    if values["data"] is not None and _tokenizer(values) is None:
        raise UsageError("--data needs --tokenizer, a local folder or a tokenizer.json")


def model_spec(values: Mapping[str, Any]) -> ModelSpec:
    """The model that ``--model`` names, else that of the checkpoint.

    Raises:
        UsageError: no such model, no such checkpoint, or one of another model.
    """
    named = None if values["model"] is None else lookup.model_spec(values["model"])
    if values["checkpoint"] is None:
        assert named is not None
        return named
    from peftadvisor.profilers.checkpoints import checked_model

    return checked_model(values["checkpoint"], named)


def given(
    values: Mapping[str, Any], model: ModelSpec, training: TrainingSpec
) -> tuple[Given, TrainingSpec]:
    """What a run is measured with, and the settings with the lengths of the longest batch.

    Raises:
        UsageError: the texts or the tokenizer cannot be used with this model.
    """
    from peftadvisor.profilers.texts import TextFile, longest, read_batches
    from peftadvisor.profilers.watching import WARMUP
    from peftadvisor.profilers.workload import Given

    if values["data"] is None:
        return Given(checkpoint=values["checkpoint"]), training
    file = TextFile(
        path=values["data"],
        tokenizer=str(_tokenizer(values)),
        text_field=values["text_field"] or "text",
        target_field=values["target_field"],
    )
    count = (WARMUP + values["steps"]) * training.gradient_accumulation_steps
    batches = read_batches(file, model, training, count)
    most = longest(batches)
    made = Given(checkpoint=values["checkpoint"], data=file.path, texts=batches)
    target_len = most.target_len or training.target_len
    return made, replace(training, seq_len=most.seq_len, target_len=target_len)


def _tokenizer(values: Mapping[str, Any]) -> str | None:
    """The one that is named, else the checkpoint's own, if it has one."""
    named: str | None = values["tokenizer"]
    folder: str | None = values["checkpoint"]
    if named is not None or folder is None:
        return named
    return folder if any((Path(folder) / name).exists() for name in _TOKENIZER_FILES) else None
