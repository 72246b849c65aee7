"""What tests of config readers share: files, their values changed, and edits put into them."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any

import yaml

from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.value import ConfigFile, Edit, ReadConfig, Tool
from peftadvisor.integrations.exports import Export
from peftadvisor.integrations.exports.value import Difference, as_run
from peftadvisor.methods import find_method
from peftadvisor.specs import TrainingSpec
from tests.config_cases import CONFIGS

ENCODERS_ONLY = {"target_len"}
"""What no config of a decoder says."""
LEVERS: tuple[tuple[str, Any], ...] = (
    ("micro_batch_size", 3),
    ("gradient_accumulation_steps", 5),
    ("seq_len", 640),
    *(("gradient_checkpointing", kind) for kind in ("none", "non-reentrant", "reentrant")),
    *(
        ("optimizer", name)
        for name in (
            *("adamw", "adamw-loop", "adamw-fused", "adamw-8bit", "paged-adamw-8bit"),
            *("adafactor", "sgd"),
        )
    ),
    *(("quantization", kind) for kind in ("none", "nf4", "nf4-dq", "int8", "gptq")),
    *(("loss", kind) for kind in ("torch", "fused", "fused-linear")),
)


def of_values(values: dict[str, Any], path: str = "config.yml") -> ConfigFile:
    """A file that holds these values."""
    return ConfigFile(path=path, text=yaml.safe_dump(values), language="yaml", values=values)


def changed(file: ConfigFile, edits: tuple[Edit, ...]) -> ConfigFile:
    """The file with values put where edits say, written and read once more."""
    values = copy.deepcopy(dict(file.values))
    for edit in edits:
        here = values
        for key in edit.path[:-1]:
            here = here.setdefault(key, {})
        here[edit.path[-1]] = edit.value
    return of_values(yaml.safe_load(yaml.safe_dump(values)), file.path)


def file_of(tool: str, name: str) -> ConfigFile:
    """A config of the corpus."""
    return read_config_file(CONFIGS / tool / name)


def untraced(found: ReadConfig) -> set[str]:
    """Settings of the run that no trace gives, or gives with another value."""
    told = {trace.name: trace.value for trace in found.traced}
    run: dict[str, Any] = {f.name: getattr(found.training, f.name) for f in fields(TrainingSpec)}
    run |= {**dict(found.method.settings), "method": found.method.name, "model": found.model}
    run |= {"learning_rate": found.learning_rate, "gpus": found.gpus, "sharding": found.sharding}
    run |= {"task": found.job.task}
    run |= {"steps": found.job.steps} if found.job.steps else {"epochs": found.job.epochs}
    nothing = object()
    return {n for n, v in run.items() if told.get(n, nothing) != v} - ENCODERS_ONLY


def lever_outcomes(tool: Tool, file: ConfigFile) -> dict[tuple[str, Any], str]:
    """For each lever: ``no`` where the tool has no word, else whether the edited file has it."""
    found = tool.read(file)
    outcomes: dict[tuple[str, Any], str] = {}
    for name, value in LEVERS:
        edits = tool.edits(file, found, {name: value})
        if edits is None:
            outcomes[name, value] = "no"
            continue
        after = tool.read(changed(file, edits))
        kept = {
            f.name
            for f in fields(TrainingSpec)
            if getattr(after.training, f.name) != getattr(found.training, f.name)
        }
        right = getattr(after.training, name) == value
        outcomes[name, value] = "yes" if right else f"{getattr(after.training, name)}, {kept}"
    return outcomes


def require_read_back(export: Export, found: ReadConfig, differences: list[Difference]) -> None:
    """What was exported is read as the run that it was, but for the differences it names."""
    run = export.run
    expected = as_run(run, differences).training
    if run.training.quantization == "none":
        expected = replace(expected, kbit_preparation="peft")
    assert found.training == expected
    assert (found.model, found.unknown) == (run.model.id, ())
    assert (found.learning_rate, found.job.epochs) == (2e-4, 3.0)
    settings, wanted = find_method(found.method.name).settings(found.method), export.settings
    if wanted.get("target_modules", "") is None:
        wanted["target_modules"] = ("q_proj", "v_proj")  # as PEFT has it for Llama
    assert settings == wanted
