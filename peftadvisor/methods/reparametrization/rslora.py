"""rsLoRA: LoRA scaled by alpha / √rank (Kalajdzievski 2023, arXiv 2312.03732)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.methods.base import Method
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA with ``use_rslora``.

    Raises:
        UnsupportedError: the model has no query and value projections.
    """
    return lora.attach(model, settings, use_rslora=True)


_RULES = {"rank": "gradients stay alike at any rank, so 64 and more can help"}

RSLORA = Method(
    name="rslora",
    title="rsLoRA: rank-stabilized scaling, on query and value projections",
    family="reparametrization",
    year=2023,
    citation="Kalajdzievski 2023, arXiv 2312.03732",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=tuple(
        replace(p, high=256, rule=_RULES[p.name], source="rsLoRA paper") if p.name in _RULES else p
        for p in lora.HYPERPARAMETERS
    ),
    attach=attach,
    trainable=lora.trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
