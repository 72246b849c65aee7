"""VeRA: scaled shared random projections (Kopiczko et al. 2023, arXiv 2310.11454)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """A scale per output and per rank of each layer: o + r; the projections are frozen."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.outputs + settings["rank"] for x in chosen)


VERA = Method(
    name="vera",
    title="VeRA: scaled shared random projections",
    family="reparametrization",
    year=2023,
    citation="Kopiczko et al. 2023, arXiv 2310.11454",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank",
            256,
            64,
            1024,
            rule="256; the learning rate is that of LoRA times ten",
            source="VeRA paper; PEFT's method comparison",
            shapes="linear",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("VeraConfig", r="rank"),
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
