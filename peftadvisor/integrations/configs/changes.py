"""A change of settings in a tool's own keys, by a table of one function for each setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, ReadConfig

Say = Callable[[Any, ReadConfig], Mapping[str, Any] | None]
"""Values by top-level key that say one new setting; None where the tool has no word for it."""

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "gradient_checkpointing": ("activation_checkpointing",),
    "gradient_checkpointing_kwargs": ("activation_checkpointing_kwargs",),
    "max_length": ("max_seq_length",),
    "per_device_train_batch_size": ("per_gpu_train_batch_size",),
}
"""Other names of keys, under which a file may hold them."""
_NOT_THERE = object()


def edits_by(
    table: Mapping[str, Say],
) -> Callable[[ConfigFile, ReadConfig, Change], tuple[Edit, ...] | None]:
    """``Tool.edits`` out of a table; keys that hold the value already are left alone."""

    def edits(file: ConfigFile, config: ReadConfig, change: Change) -> tuple[Edit, ...] | None:
        wanted: dict[str, Any] = {}
        for name, value in change.items():
            said = table[name](value, config) if name in table else None
            if said is None:
                return None
            wanted.update(said)
        return tuple(e for key, value in wanted.items() for e in _edits(file.values, key, value))

    return edits


def _edits(values: Mapping[str, Any], key: str, value: Any) -> Iterator[Edit]:
    others = (name for name in _SPELLINGS.get(key, ()) if values.get(name) is not None)
    key = next(others, key)
    there = values.get(key, _NOT_THERE)
    if isinstance(value, Mapping) and isinstance(there, Mapping):
        yield from (
            Edit((key, name), new) for name, new in value.items() if not _same(there.get(name), new)
        )
    elif not _same(None if there is _NOT_THERE else there, value):
        yield Edit((key,), value)


def _same(there: Any, value: Any) -> bool:
    """Whether a value stands there already; true is not 1."""
    return type(there) is type(value) and bool(there == value)
