"""BEFT: trained biases on value projections (BEFT: bias-efficient fine-tuning, 2025)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import adapt
from peftadvisor.methods.roles import projection_names

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Beft, on value projections by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    targets = settings["target_modules"] or projection_names(model, "v")
    return adapt(model, "BeftConfig", targets)


def trainable(layout: Layout, settings: Settings) -> int:
    """A bias per output."""
    chosen = layout.targets(settings["target_modules"], "v qkv")
    return layout.head + sum(x.outputs for x in chosen)


BEFT = Method(
    name="beft",
    title="BEFT: trained biases beside value projections",
    family="reparametrization",
    year=2025,
    citation="BEFT: bias-efficient fine-tuning, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(Hyperparameter("target_modules", None),),
    attach=attach,
    trainable=trainable,
    several=True,
)
