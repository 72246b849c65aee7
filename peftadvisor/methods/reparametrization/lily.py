"""Lily: low-rank factors shared across layers (Zhong et al. 2024, arXiv 2407.09946)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def trainable(layout: Layout, settings: Settings) -> int:
    """A of i·r for every stride-th layer of a kind, B of o·r·k once per kind, routers of r·k."""
    r, k, stride = settings["rank"], settings["experts"], settings["stride"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    kinds = Counter((x.path.rpartition(".")[2], x.inputs, x.outputs) for x in chosen)
    shared = sum(-(-n // stride) * i * r + o * r * k for (_, i, o), n in kinds.items())
    return layout.head + shared + r * k * len(chosen)


LILY = Method(
    name="lily",
    title="Lily: low-rank factors shared across layers",
    family="reparametrization",
    year=2024,
    citation="Zhong et al. 2024, arXiv 2407.09946",
    axes=Axes("yes", "yes", "no", "low-rank products with a router", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 32, 8, 64, source="PEFT defaults", shapes="linear"),
        Hyperparameter("stride", 1, 1, 4, rule="layers that share an A", source="PEFT defaults"),
        Hyperparameter("experts", 2, 2, 8, rule="B's that a router mixes", source="PEFT defaults"),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=adapter("LilyConfig", r="rank", stride_A="stride", num_B="experts"),
    trainable=trainable,
    quantized_base=True,
    several=True,
)
