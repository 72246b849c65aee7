"""LoRA-FA: LoRA with frozen A factors (Zhang et al. 2023, arXiv 2308.03303)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import MakeOptimizer, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, merge
from peftadvisor.methods.reparametrization import lora

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

RATE = 1e-4


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA and freeze every A.

    Raises:
        UnsupportedError: the model has no query and value projections.
    """
    wrapped = lora.attach(model, settings)
    for name, parameter in wrapped.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    return wrapped


def optimizer(model: Any, _: MakeOptimizer) -> Any:
    """PEFT's LoRA-FA optimizer: AdamW on gradients of B corrected by the inverse of A·Aᵀ."""
    from peft.optimizers import create_lorafa_optimizer

    config = model.peft_config[model.active_adapter]
    return create_lorafa_optimizer(model, config.r, config.lora_alpha, RATE)


def trainable(layout: Layout, settings: Settings) -> int:
    """The B factor of each adapted layer, r·out; a classification head as a whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * x.outputs for x in chosen)


_HYPERPARAMETERS = tuple(
    replace(p, shapes="any") if p.name == "rank" else p for p in lora.HYPERPARAMETERS
)
"""Nothing grows evenly with the rank: its optimizer holds products of rank by rank."""

LORA_FA = Method(
    name="lora-fa",
    title="LoRA-FA on query and value projections",
    family="reparametrization",
    year=2023,
    citation="Zhang et al. 2023, arXiv 2308.03303",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=_HYPERPARAMETERS,
    attach=attach,
    trainable=trainable,
    stored=lora.trainable,
    merge=merge,
    optimizer=optimizer,
    quantized_base=True,
    several=True,
)
