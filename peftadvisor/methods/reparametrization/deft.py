"""DEFT: a projection taken out and another put in.

DEFT: decompositional efficient fine-tuning, 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Deft, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return adapt(model, "DeftConfig", settings["target_modules"], r=settings["rank"])


def trainable(layout: Layout, settings: Settings) -> int:
    """As LoRA: r·(i + o)."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) for x in chosen)


DEFT = Method(
    name="deft",
    title="DEFT: a projection taken out and another put in",
    family="reparametrization",
    year=2025,
    citation="DEFT: decompositional efficient fine-tuning, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 64),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
