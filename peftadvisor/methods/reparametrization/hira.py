"""HiRA: a low-rank factor of the weights, element by element.

HiRA: Parameter-Efficient Hadamard High-Rank Adaptation, ICLR 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Hira, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return adapt(model, "HiraConfig", settings["target_modules"], r=settings["rank"])


def trainable(layout: Layout, settings: Settings) -> int:
    """As LoRA: r·(i + o)."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) for x in chosen)


HIRA = Method(
    name="hira",
    title="HiRA: a low-rank factor of the weights, element by element",
    family="reparametrization",
    year=2025,
    citation="HiRA: Parameter-Efficient Hadamard High-Rank Adaptation, ICLR 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank",
            32,
            16,
            64,
            rule="with a learning rate of 4.5e-3",
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
