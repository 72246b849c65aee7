"""PEANuT: an update computed from the weights by a small network.

Zhong et al. 2024, arXiv 2410.01870.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Peanut, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return adapt(model, "PeanutConfig", settings["target_modules"], r=settings["rank"])


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
        Hyperparameter("rank", 32, 8, 64, source="PEFT defaults"),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
