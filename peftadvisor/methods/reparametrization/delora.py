"""DeLoRA: LoRA with its angle and strength apart (Bini et al. 2025, arXiv 2503.18225)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """As LoRA and the strength: r·(i + o) + 1."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) + 1 for x in chosen)


DELORA = Method(
    name="delora",
    title="DeLoRA: LoRA with its angle and strength apart",
    family="reparametrization",
    year=2025,
    citation="Bini et al. 2025, arXiv 2503.18225",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 8, 32, source="PEFT defaults", shapes="linear"),
        Hyperparameter(
            "strength",
            15,
            1,
            30,
            rule="bounds how far the weights move",
            source="DeLoRA paper",
            shapes="none",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("DeloraConfig", r="rank", delora_lambda="strength"),
    trainable=trainable,
    merge=merge,
    several=True,
)
