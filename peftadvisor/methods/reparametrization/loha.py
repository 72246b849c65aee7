"""LoHa: the product of two low-rank matrices, element by element.

Hyeon-Woo et al. 2021, arXiv 2108.06098.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """Two low-rank matrices: 2r·(i + o)."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(2 * settings["rank"] * (x.inputs + x.outputs) for x in chosen)


LOHA = Method(
    name="loha",
    title="LoHa: the product of two low-rank matrices, element by element",
    family="reparametrization",
    year=2021,
    citation="Hyeon-Woo et al. 2021, arXiv 2108.06098",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 32, source="PEFT defaults", shapes="linear"),
        Hyperparameter("alpha", 8, 4, 32, rule="the rank", source="PEFT defaults", shapes="none"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("LoHaConfig", r="rank", alpha="alpha"),
    trainable=trainable,
    merge=merge,
    several=True,
)
