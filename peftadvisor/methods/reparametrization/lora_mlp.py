"""LoRA on the feed-forward layers alone, after Hu et al. 2021 (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method, Settings
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora
from peftadvisor.methods.sites import sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

FEED_FORWARD = "up gate down"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA on the linear layers of feed-forward, found by role.

    Raises:
        UnsupportedError: no layer of the model has a linear feed-forward.
    """
    named = settings["target_modules"] or _feed_forward_paths(model)
    return lora.attach(model, {**settings, "target_modules": named})


def _feed_forward_paths(model: Any) -> list[str]:
    paths = [site.path for site in sites(model) if site.linear.role in FEED_FORWARD.split()]
    if not paths:
        raise UnsupportedError(
            f"{type(model).__name__} has no linear feed-forward layers; use lora or ln-tuning"
        )
    return paths


def trainable(layout: Layout, settings: Settings) -> int:
    """Two factors per feed-forward layer, r·(in + out); a classification head as a whole."""
    chosen = layout.targets(settings["target_modules"], FEED_FORWARD)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) for x in chosen)


LORA_MLP = Method(
    name="lora-mlp",
    title="LoRA on feed-forward layers",
    family="reparametrization",
    year=2021,
    citation=lora.CITATION,
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=lora.HYPERPARAMETERS,
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
