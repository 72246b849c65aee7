"""A run of ours as JSON: the ``run`` object of ``peftadvisor estimate --format json``, or all.

Beside what the contract has, ``learning_rate`` and ``job`` may be told, for the rules on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, get_args, get_type_hints

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.reader import Reader, amount, shown, switch, text, whole
from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, ReadConfig, Tool
from peftadvisor.methods import find_method
from peftadvisor.specs import Job, MethodSpec, Sharding, TrainingSpec

_SIGNS = ("model", "method", "method_config", "training", "gpu", "gpus", "sharding")
_PLAIN: Mapping[Any, Callable[[Any], Any]] = {int: whole, float: amount, bool: switch}
_CHANGED = frozenset(
    {"micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "optimizer"}
    | {"quantization", "seq_len", "loss"}
)


def marks(values: Mapping[str, Any]) -> int:
    """Signs of a run of ours, at the top or under ``run``."""
    run = values.get("run")
    found = run if isinstance(run, Mapping) else values
    return sum(key in found for key in _SIGNS) if "method" in found else 0


def read(file: ConfigFile) -> ReadConfig:
    """The run as it was written.

    Raises:
        UsageError: no model or method, a method or setting that there is not, or a bad value.
    """
    ours = version("peftadvisor")
    reader = Reader(file.values, one_line(file.path), f"peftadvisor {ours}")
    at = _prefix(file)
    for key in ("model", "method"):
        if not reader.has(f"{at}{key}"):
            raise UsageError(f"{reader.file} has no '{at}{key}'; write it as estimate does")
    _require_mappings(reader, file.values["run"] if at else file.values, at)
    model = reader.take("model", f"{at}model", text, "")
    method = _method(reader, at)
    training = _training(reader, at)
    sharding: Sharding = reader.take(
        "sharding", f"{at}sharding", _choice(get_args(Sharding)), "ddp"
    )
    gpus = reader.take("gpus", f"{at}gpus", whole, None, "not said")
    reader.peek(f"{at}gpu")
    reader.peek(f"{at}expandable_segments")
    inner = tuple(key for key in reader.unknown(()) if not at or key.startswith(at))
    return ReadConfig(
        tool="runspec",
        version=ours,
        model=model,
        method=method,
        training=training,
        job=_job(reader, at),
        learning_rate=reader.take("learning_rate", f"{at}learning_rate", amount, None, "not said"),
        gpus=gpus,
        sharding=sharding,
        notes=(),
        traced=tuple(reader.traced),
        unknown=inner,
    )


def _job(reader: Reader, at: str) -> Job:
    """What the run is for: beyond the contract of an estimate, as the user may add it."""
    hints = get_type_hints(Job)
    found = {
        field.name: reader.take(
            field.name,
            f"{at}job.{field.name}",
            _reads_optional(hints[field.name]),
            None,
            "not said",
        )
        for field in dataclasses.fields(Job)
    }
    return Job(**found)


def _require_mappings(reader: Reader, run: Mapping[str, Any], at: str) -> None:
    for key in ("method_config", "training", "job"):
        found = {} if run.get(key) is None else run[key]
        if not isinstance(found, Mapping):
            raise UsageError(f"{reader.file}: '{at}{key}' is {shown(found)}; write a mapping")


def _prefix(file: ConfigFile) -> str:
    return "run." if isinstance(file.values.get("run"), Mapping) else ""


def _method(reader: Reader, at: str) -> MethodSpec:
    name = reader.take("method", f"{at}method", text, "")
    config = reader.peek(f"{at}method_config", {})
    try:
        settings = {str(key): _tuples(value) for key, value in config.items()}
        spec = MethodSpec(name=find_method(name).name).with_settings(**settings)
        find_method(name).settings(spec)
    except UsageError as error:
        raise UsageError(f"{reader.file}: '{at}method': {error}") from None
    for key, value in settings.items():
        reader.note(key, value, f"{at}method_config.{key}", f"{key}: {shown(value)}")
    return spec


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _training(reader: Reader, at: str) -> TrainingSpec:
    hints = get_type_hints(TrainingSpec)
    found: dict[str, Any] = {
        field.name: reader.take(
            field.name, f"{at}training.{field.name}", _reads(hints[field.name]), field.default
        )
        for field in dataclasses.fields(TrainingSpec)
    }
    return TrainingSpec(**found)


def _reads(kind: Any) -> Callable[[Any], Any]:
    return _PLAIN.get(kind) or _choice(get_args(kind))


def _reads_optional(kind: Any) -> Callable[[Any], Any]:
    return _reads(next(inner for inner in get_args(kind) if inner is not type(None)))


def _choice(choices: tuple[str, ...]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"known here: {', '.join(choices)}")
        return value

    return read


def edits(file: ConfigFile, config: ReadConfig, change: Change) -> tuple[Edit, ...] | None:
    """Every setting has its own name in our own contract."""
    if not set(change) <= _CHANGED:
        return None
    above = ("run", "training") if _prefix(file) else ("training",)
    return tuple(
        Edit((*above, name), value)
        for name, value in change.items()
        if value != getattr(config.training, name)
    )


TOOL = Tool(name="runspec", title="a run of peftadvisor", marks=marks, read=read, edits=edits)
