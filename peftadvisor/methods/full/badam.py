"""BAdam: one layer at a time is trained by Adam (Luo et al. 2024, arXiv 2404.02827).

From the first layer to the last and over again; the first needs the most memory, as gradients
reach it through all others. Embeddings and head are frozen, as by default in the authors' code;
here norms are as well. The authors' fp32 copy of the layer is left to the user's optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.full.turns import (
    attach_turns,
    before_step,
    ever_trained,
    optimizer,
    resting,
    turning,
)
from peftadvisor.methods.peft_backed import train_heads

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train the linear maps of the first layer, and a classification head as a whole.

    Raises:
        UnsupportedError: the base is quantized, or its layers are no linear maps for the most.
    """
    model.requires_grad_(False)
    return train_heads(attach_turns(model, _choose, settings["interval"]))


def _choose(turn: int, layers: int) -> tuple[int]:
    return (turn % layers,)


def trainable(layout: Layout, _: Settings) -> int:
    """Weights and biases of one layer's linear maps; a classification head whole."""
    return layout.head + turning(layout) - resting(layout, _choose)


BADAM = Method(
    name="badam",
    title="BAdam: full fine-tuning, one layer at a time",
    family="full",
    year=2024,
    citation="Luo et al. 2024, arXiv 2404.02827",
    axes=Axes("no", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "interval", 100, 50, 100, rule="steps that a layer is trained", source="paper"
        ),
    ),
    attach=attach,
    trainable=trainable,
    stored=lambda layout, _: layout.head + turning(layout),
    merge=lambda model: model,
    optimizer=optimizer,
    before_step=before_step,
    ever_trained=ever_trained,
)
