"""What a tool's config says, as values: the run, where each part of it comes from, and edits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from peftadvisor.specs import Job, MethodSpec, Sharding, TrainingSpec

Language = Literal["yaml", "json"]
Path = tuple[str, ...]
"""Where a value stands: keys from the top of a file down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file that was read: its text, and what it holds as plain data."""

    path: str
    text: str
    language: Language
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One value of the run and what gave it.

    ``name`` is what our specs call it (``micro_batch_size``, ``rank``, ``learning_rate``); ``key``
    is the dotted key of the file, None where the file does not say; ``source`` is that key with
    what stands there, or the default of which tool and version, or what it was inferred from.
    """

    name: str
    value: Any
    key: str | None
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConfig:
    """The run that a config describes, without the GPU.

    ``version`` is the tool's release whose defaults are meant. ``gpus`` is None where the config
    does not say how many; ``sharding`` counts from two on. ``unknown`` are keys that nobody here
    knows, which may matter; ``notes`` say what is left out of the prediction, one clause each.
    """

    tool: str
    version: str
    model: str
    method: MethodSpec
    training: TrainingSpec
    job: Job
    learning_rate: float | None
    gpus: int | None
    sharding: Sharding
    traced: tuple[Traced, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """A value to be put at a place of the file, in the stead of what is there or anew."""

    path: Path
    value: Any


Change = Mapping[str, Any]
"""Settings of ``TrainingSpec`` by name, each with the value that it is to have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One kind of config: how it is recognised, read, and told a change.

    ``marks`` counts the signs that a file is of this kind, 0 for none: most signs win. ``edits``
    says a change in the tool's own keys, None where the tool has no word for it.
    """

    name: str
    title: str
    marks: Callable[[Mapping[str, Any]], int]
    read: Callable[[ConfigFile], ReadConfig]
    edits: Callable[[ConfigFile, ReadConfig, Change], tuple[Edit, ...] | None]
