"""Uni-LoRA: all LoRA factors out of one vector (Li et al. 2025, arXiv 2506.00799)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's UniLora, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    made = partial(
        adapt,
        model,
        "UniLoraConfig",
        settings["target_modules"],
        r=settings["rank"],
        theta_d_length=settings["length"],
    )
    if not next(model.parameters()).is_meta:
        return made()
    with patch("torch.bincount", lambda indices, minlength: indices.new_empty(minlength)):
        return made()  # how often each number is used cannot be counted without values


def trainable(layout: Layout, settings: Settings) -> int:
    """One vector for all layers."""
    return layout.head + settings["length"]


UNILORA = Method(
    name="unilora",
    title="Uni-LoRA: all LoRA factors out of one vector",
    family="reparametrization",
    year=2025,
    citation="Li et al. 2025, arXiv 2506.00799",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 4, 4, 16, source="PEFT defaults", shapes="linear"),
        Hyperparameter(
            "length", 256, 256, 100000, rule="trained numbers in all", source="PEFT defaults"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
