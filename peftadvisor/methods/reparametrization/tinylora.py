"""TinyLoRA: a few scalars on frozen singular directions (TinyLoRA, 2026)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """U numbers per layer."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["width"] for x in chosen)


TINYLORA = Method(
    name="tinylora",
    title="TinyLoRA: a few scalars on frozen singular directions",
    family="reparametrization",
    year=2026,
    citation="TinyLoRA, 2026",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 2, 1, 4, source="PEFT defaults"),
        Hyperparameter(
            "width", 64, 1, 128, rule="trained numbers per layer", source="PEFT defaults"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("TinyLoraConfig", r="rank", u="width"),
    trainable=trainable,
    merge=merge,
    several=True,
)
