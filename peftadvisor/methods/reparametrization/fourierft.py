"""FourierFT: a few coefficients of the update's spectrum (Gao et al. 2024, arXiv 2405.03003)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's FourierFT, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    count = settings["frequencies"]
    return adapt(
        model,
        "FourierFTConfig",
        settings["target_modules"],
        n_frequency=count,
        scaling=settings["scaling"],
    )


def trainable(layout: Layout, settings: Settings) -> int:
    """N coefficients per layer."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(min(settings["frequencies"], x.weights) for x in chosen)


FOURIERFT = Method(
    name="fourierft",
    title="FourierFT: a few coefficients of the update's spectrum",
    family="reparametrization",
    year=2024,
    citation="Gao et al. 2024, arXiv 2405.03003",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "frequencies",
            1000,
            200,
            10000,
            rule="1000; at most the weights of a layer",
            source="FourierFT paper",
        ),
        Hyperparameter("scaling", 150.0, 100, 300, source="PEFT defaults", shapes="none"),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
