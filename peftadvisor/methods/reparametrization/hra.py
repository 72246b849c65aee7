"""HRA: a chain of Householder reflections (Yuan et al. 2024, arXiv 2405.17484)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """One vector per reflection: r·i."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * x.inputs for x in chosen)


HRA = Method(
    name="hra",
    title="HRA: a chain of Householder reflections",
    family="reparametrization",
    year=2024,
    citation="Yuan et al. 2024, arXiv 2405.17484",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 8, 2, 32, rule="an even number starts at no change", source="HRA paper"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("HRAConfig", r="rank"),
    trainable=trainable,
    merge=merge,
    several=True,
)
