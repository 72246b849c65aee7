"""PVeRA: VeRA with a learned distribution of its scales.

PVeRA: Probabilistic Vector-Based Random Matrix Adaptation, 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """As VeRA with a mean and a variance per rank: o + 2r."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.outputs + 2 * settings["rank"] for x in chosen)


PVERA = Method(
    name="pvera",
    title="PVeRA: VeRA with a learned distribution of its scales",
    family="reparametrization",
    year=2025,
    citation="PVeRA: Probabilistic Vector-Based Random Matrix Adaptation, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 256, 64, 1024, rule="as VeRA", source="PEFT defaults", shapes="linear"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("PveraConfig", r="rank"),
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
