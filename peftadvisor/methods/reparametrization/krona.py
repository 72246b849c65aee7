"""KronA: the update as one Kronecker product (Edalati et al. 2022, arXiv 2212.10650).

PEFT's LoKr with a rank that neither factor reaches, so that both are trained whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lokr

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

WHOLE = {"rank": 1 << 20, "alpha": 1 << 20}


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's LoKr, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return lokr.LOKR.attach(model, {**settings, **WHOLE})


def trainable(layout: Layout, settings: Settings) -> int:
    """Widths o = o₁·o₂ and i = i₁·i₂: o₁·i₁ + o₂·i₂."""
    return lokr.trainable(layout, {**settings, **WHOLE})


KRONA = Method(
    name="krona",
    title="KronA: the update as one Kronecker product",
    family="reparametrization",
    year=2022,
    citation="Edalati et al. 2022, arXiv 2212.10650",
    axes=Axes("yes", "yes", "no", "none", "seen"),
    hyperparameters=(
        Hyperparameter("factor", -1, rule="-1: factors as equal as can be", source="PEFT"),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
