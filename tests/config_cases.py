"""Configs of other tools on disk, read by whichever tool has most signs in them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from peftadvisor.integrations.configs.editing import edited
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of
from peftadvisor.integrations.configs.value import ReadConfig
from peftadvisor.methods import find_method
from peftadvisor.specs import Job, TrainingSpec

CONFIGS = Path(__file__).parent / "configs"
Case = tuple[str, str, dict[str, Any], dict[str, Any], Job, float]
"""Model, method, its settings, what differs of the training, job and learning rate."""


def read(name: str | Path) -> ReadConfig:
    """A config below ``tests/configs``, or at any path."""
    file = read_config_file(CONFIGS / name)
    return tool_of(file).read(file)


def written(folder: Path, values: Any, name: str = "config.yaml") -> Path:
    """A file with these values."""
    path = folder / name
    text = json.dumps(values) if name.endswith(".json") else yaml.safe_dump(values)
    path.write_text(text, encoding="utf-8")
    return path


def changed(training: TrainingSpec) -> dict[str, Any]:
    """What of a training differs from the defaults of ``TrainingSpec``."""
    usual, found = dataclasses.asdict(TrainingSpec()), dataclasses.asdict(training)
    return {name: value for name, value in found.items() if value != usual[name]}


def after(path: Path, change: dict[str, Any]) -> ReadConfig | None:
    """The config at a path read back after a change, None where the tool cannot say it.

    The new text lies beside the old one, so that what is named relative to it is found.
    """
    file = read_config_file(path)
    tool = tool_of(file)
    edits = tool.edits(file, tool.read(file), change)
    if edits is None:
        return None
    text = edited(file, edits)
    assert text is not None, f"{path}: {edits} cannot be put into the text"
    values = json.loads(text) if file.language == "json" else yaml.safe_load(text)
    return tool.read(dataclasses.replace(file, text=text, values=values))


def require_traces(config: ReadConfig) -> None:
    """Every value of the run is traced once, by its final value."""
    traced = {trace.name: trace.value for trace in config.traced}
    assert len(traced) == len(config.traced)
    told = {
        **changed(config.training),
        **dict(config.method.settings),
        "model": config.model,
        "method": config.method.name,
        "sharding": config.sharding,
        "gpus": config.gpus,
        "learning_rate": config.learning_rate,
        "epochs": config.job.epochs,
        "steps": config.job.steps,
        "task": config.job.task,
    }
    for name in ("loop", "experts", "iterations"):
        told.pop(name, None)
    missing = {n: v for n, v in told.items() if v is not None and n not in traced}
    assert not missing
    differing = {n: (v, traced[n]) for n, v in told.items() if n in traced and v != traced[n]}
    assert not differing
    find_method(config.method.name).settings(config.method)


def require_run(config: ReadConfig, expected: Case) -> None:
    """Model, method, its settings, what differs of the training, job and rate; all traced."""
    model, method, settings, training, job, rate = expected
    assert (config.model, config.method.name) == (model, method)
    assert dict(config.method.settings) == settings
    assert changed(config.training) == training
    assert (config.job, config.learning_rate) == (job, rate)
    require_traces(config)
