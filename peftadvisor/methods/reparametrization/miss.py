"""MiSS: one shared matrix of shards (Kang and Yin 2024, arXiv 2409.15371)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """One matrix per layer: r·o (mini: r·mini rank, bat: r·o)."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(
        settings["rank"] * (settings["mini_rank"] if settings["variant"] == "mini" else x.outputs)
        for x in chosen
    )


MISS = Method(
    name="miss",
    title="MiSS: one shared matrix of shards",
    family="reparametrization",
    year=2024,
    citation="Kang and Yin 2024, arXiv 2409.15371",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 64, 16, 128, rule="64; must divide the widths for bat", source="PEFT defaults"
        ),
        Hyperparameter("variant", True, rule="True, or bat or mini", source="PEFT"),
        Hyperparameter("mini_rank", 1, 1, 64, rule="of the variant mini", source="PEFT"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("MissConfig", r="rank", init_weights="variant", mini_r="mini_rank"),
    trainable=trainable,
    merge=merge,
    several=True,
)
