"""``optim`` where it names more than an optimizer: GaLore and APOLLO over whole models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.method import method_of
from peftadvisor.integrations.configs.reader import Reader, amount, shown, whole
from peftadvisor.specs import MethodSpec

_METHODS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "galore_adamw": ("galore", {"rank": 128, "gap": 200, "scale": 0.25}),
    "apollo_adamw": ("apollo", {"rank": 128, "gap": 200, "scale": 1.0}),
}
"""Our methods, and what transformers 5.23 takes where ``optim_args`` does not say."""
_ARGS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "rank": ("rank", whole),
    "update_proj_gap": ("gap", whole),
    "scale": ("scale", amount),
}


def low_rank_of(reader: Reader) -> MethodSpec | None:
    """The method that ``optim`` names with its ``optim_args``, None where it names none.

    Raises:
        UsageError: an argument that is no pair, or no number.
    """
    name = str(reader.peek("optim")).lower()
    if name not in _METHODS:
        return None
    method, settings = _METHODS[name]
    found = {**settings, **_given(reader)}
    for key, value in found.items():
        said = reader.has("optim_args")
        source = f"optim_args: {shown(reader.peek('optim_args'))}"
        reader.note(
            key,
            value,
            "optim_args" if said else None,
            source if said else f"default of {reader.defaults_of}",
        )
    return method_of(method, found)


def _given(reader: Reader) -> dict[str, Any]:
    text, found = str(reader.peek("optim_args", "")), {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{reader.file}: 'optim_args' is {shown(text)}; write NAME=VALUE,…")
        if name in _ARGS:
            ours, read = _ARGS[name]
            found[ours] = reader.understood("optim_args", value, read)
    return found
