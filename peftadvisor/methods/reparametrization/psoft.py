"""PSOFT: a rotation within the leading singular directions.

PSOFT: orthogonal fine-tuning in the principal subspace, 2025.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Psoft, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    adapted = adapt(
        model,
        "PsoftConfig",
        settings["target_modules"],
        r=settings["rank"],
        psoft_alpha=settings["rank"],
    )
    for layer in [m for m in adapted.modules() if hasattr(m, "_psoft_A_cache")]:
        caches = layer._psoft_A_cache  # views of all right singular vectors, if row-major
        for name in list(caches.keys()):
            caches[name] = caches[name].clone()
    return adapted


def trainable(layout: Layout, settings: Settings) -> int:
    """A skew matrix r × r and two scales per direction: r·(r - 1) / 2 + 2r."""
    r = settings["rank"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(r * (r - 1) // 2 + 2 * r for x in chosen)


PSOFT = Method(
    name="psoft",
    title="PSOFT: a rotation within the leading singular directions",
    family="reparametrization",
    year=2025,
    citation="PSOFT: orthogonal fine-tuning in the principal subspace, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 32, 16, 256, source="PEFT defaults"),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
