"""PEANuT: an update computed from the weights by a small network.

Zhong et al. 2024, arXiv 2410.01870.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """Two matrices over the outputs: 2r·o."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(2 * settings["rank"] * x.outputs for x in chosen)


PEANUT = Method(
    name="peanut",
    title="PEANuT: an update computed from the weights by a small network",
    family="reparametrization",
    year=2024,
    citation="Zhong et al. 2024, arXiv 2410.01870",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 32, 8, 64, source="PEFT defaults", shapes="linear"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("PeanutConfig", r="rank"),
    trainable=trainable,
    merge=merge,
    several=True,
)
