"""A change of settings in a tool's own keys, by a table of one function for each setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.integrations.configs.value import Change, ConfigFile, Edit, ReadConfig

Say = Callable[[Any, ReadConfig], Mapping[str, Any] | None]
"""Values by top-level key that say one new setting; None where the tool has no word for it."""

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "activation_checkpointing": ("gradient_checkpointing",),
    "activation_checkpointing_kwargs": ("gradient_checkpointing_kwargs",),
    "max_length": ("max_seq_length", "model_max_length"),
    "per_device_train_batch_size": ("per_gpu_train_batch_size",),
}
"""Earlier names of keys, under which a file may hold them."""
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
        found = (_edit(file.values, key, value) for key, value in wanted.items())
        return tuple(edit for edit in found if edit is not None)

    return edits


def _edit(values: Mapping[str, Any], key: str, value: Any) -> Edit | None:
    key = next((name for name in (key, *_SPELLINGS.get(key, ())) if name in values), key)
    there = values.get(key, _NOT_THERE)
    if there is not _NOT_THERE and there == value and type(there) is type(value):
        return None
    if there is _NOT_THERE and value is None:
        return None
    if isinstance(value, dict) and isinstance(there, Mapping) and len(value) == 1:
        inner, new = next(iter(value.items()))
        return Edit((key, inner), new)
    return Edit((key,), value)
