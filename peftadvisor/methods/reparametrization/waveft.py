"""WaveFT: a few coefficients of the update's wavelets.

Bilican et al. 2025, arXiv 2505.12532.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.sites import layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's WaveFT, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    count = coefficients(layout_of(model), settings)
    return adapt(
        model,
        "WaveFTConfig",
        settings["target_modules"],
        n_frequency=count,
        scaling=settings["scaling"],
    )


def trainable(layout: Layout, settings: Settings) -> int:
    """N coefficients per layer."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + coefficients(layout, settings) * len(chosen)


def coefficients(layout: Layout, settings: Settings) -> int:
    """N as set, but for layers that have fewer weights."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return min([settings["frequencies"], *(x.weights for x in chosen)])


WAVEFT = Method(
    name="waveft",
    title="WaveFT: a few coefficients of the update's wavelets",
    family="reparametrization",
    year=2025,
    citation="Bilican et al. 2025, arXiv 2505.12532",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("frequencies", 2592, 500, 10000, source="PEFT defaults"),
        Hyperparameter("scaling", 25.0, 5, 50, source="PEFT defaults", shapes="none"),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
