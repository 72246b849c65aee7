"""GLoRA: generalized LoRA of weights and biases (Chavan et al. 2023, arXiv 2306.07967)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """Two low-rank matrices, 2r·(i + o); with a bias another, r·(o + 1), and two scalars."""
    r = settings["rank"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(
        2 * r * (x.inputs + x.outputs) + x.bias * (r * (x.outputs + 1) + 2) for x in chosen
    )


GLORA = Method(
    name="glora",
    title="GLoRA: generalized LoRA of weights and biases",
    family="reparametrization",
    year=2023,
    citation="Chavan et al. 2023, arXiv 2306.07967",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 16, source="PEFT defaults", shapes="linear"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("GloraConfig", r="rank"),
    trainable=trainable,
    merge=merge,
    several=True,
)
