"""LISA: embeddings and head, and a few layers chosen anew all the time, are trained.

Pan et al. 2024, arXiv 2403.17919. The first layers begin, then they are drawn at random, the same
for the same step. Norms, as small as they are, are trained throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.full.turns import (
    attach_turns,
    before_step,
    ever_trained,
    optimizer,
    resting,
)

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train everything but the layers whose turn it is not.

    Raises:
        UnsupportedError: the base is quantized, or its layers are no linear maps for the most.
    """
    return attach_turns(model, partial(_choose, settings["active"]), settings["interval"])


def _choose(active: int, turn: int, layers: int) -> list[int]:
    if turn == 0:
        return list(range(min(active, layers)))
    return Random(turn).sample(range(layers), min(active, layers))


def trainable(layout: Layout, settings: Settings) -> int:
    """Everything but the linear maps of the layers that are not active."""
    return layout.total - resting(layout, partial(_choose, settings["active"]))


LISA = Method(
    name="lisa",
    title="LISA: embeddings, head and a few layers in turn",
    family="full",
    year=2024,
    citation="Pan et al. 2024, arXiv 2403.17919",
    axes=Axes("no", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("active", 2, 1, 8, rule="more where memory allows", source="paper"),
        Hyperparameter(
            "interval", 50, 5, 100, rule="steps between draws; LMFlow takes 20", source="paper"
        ),
    ),
    attach=attach,
    trainable=trainable,
    stored=lambda layout, _: layout.total,
    merge=lambda model: model,
    optimizer=optimizer,
    before_step=before_step,
    ever_trained=ever_trained,
)
