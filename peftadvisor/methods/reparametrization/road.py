"""RoAd: rotations of pairs of outputs (Liao and Monz 2024, arXiv 2409.00119)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.sites import common_divisor, layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Road, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    group = common_divisor(layout_of(model), settings["target_modules"], settings["group_size"])
    return adapt(
        model, "RoadConfig", settings["target_modules"], variant="road_1", group_size=group
    )


def trainable(layout: Layout, settings: Settings) -> int:
    """An angle and a scale per pair of outputs: o."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.outputs for x in chosen)


ROAD = Method(
    name="road",
    title="RoAd: rotations of pairs of outputs",
    family="reparametrization",
    year=2024,
    citation="Liao and Monz 2024, arXiv 2409.00119",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "group_size",
            64,
            32,
            128,
            rule="an even divisor of all widths; a learning rate of 1e-3",
            source="PEFT's method comparison",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
