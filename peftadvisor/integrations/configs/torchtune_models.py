"""Which model a builder of torchtune makes, by our ids. Read in torchtune 0.6.1."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import PurePosixPath

from peftadvisor.data.models import model_ids
from peftadvisor.integrations.exports.torchtune_models import find_family

_ADAPTED = ("qlora_", "lora_", "")
_NO_QLORA = frozenset({"qwen2", "qwen2_5"})
"""Modules without builders of quantized bases; ``quantize_base`` is told to the others there."""
FUSED = frozenset({"phi3", "phi4"})
"""Modules whose models have one projection for query, key and value in transformers."""


def built(component: str) -> tuple[str, str, str] | None:
    """The module, the plain builder and how it adapts (``qlora_``, ``lora_`` or nothing).

    None where the name is none of a builder that has a model here.
    """
    parts = component.split(".")
    if len(parts) != 4 or parts[:2] != ["torchtune", "models"]:
        return None
    module, name = parts[2:]
    adapted = next(start for start in _ADAPTED if name.startswith(start))
    if adapted == "qlora_" and module in _NO_QLORA:
        return None
    plain = f"torchtune.models.{module}.{name.removeprefix(adapted)}"
    return (module, plain, adapted) if plain in builders() else None


@cache
def builders() -> Mapping[str, tuple[str, ...]]:
    """The ids of each builder's models, which have the same shapes."""
    found: dict[str, tuple[str, ...]] = {}
    for model_id in model_ids():
        family = find_family(model_id)
        if family is not None:
            name = family[0].model(family[1], lora=False)
            found[name] = (*found.get(name, ()), model_id)
    return found


def model_of(plain: str, folder: str) -> tuple[str, bool]:
    """A builder's model, and whether the folder of the checkpoint is named after it."""
    ids = builders()[plain]
    wanted = _name(PurePosixPath(folder).name)
    named = next((model_id for model_id in ids if _name(model_id) == wanted), None)
    return named or ids[0], named is not None


def _name(model_id: str) -> str:
    return model_id.rpartition("/")[2].lower().removeprefix("meta-")
