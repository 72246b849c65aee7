"""Attention tuning: the weights of all attention are trained (Touvron et al. 2022).

arXiv 2203.09795. Queries, keys, values and outputs with their biases; everything else is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.sites import Linear, sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

ATTENTION = "q k v qkv o"


def attach(model: Any, _: Mapping[str, Any]) -> Any:
    """Train all projections of attention, and a classification head as a whole.

    Raises:
        UnsupportedError: the model has no attention, or a quantized one.
    """
    lacking = "has no attention projections to train; use bitfit or ln-tuning instead"
    return train_linears(model, lambda linear: linear.role in ATTENTION.split(), lacking)


def train_linears(model: Any, wanted: Callable[[Linear], bool], lacking: str) -> Any:
    """Freeze the model but for these linear layers inside its layers, and a head.

    Raises:
        UnsupportedError: there are none (``lacking`` says so of the model), or they are quantized.
    """
    chosen = [site.module for site in sites(model) if wanted(site.linear)]
    if not chosen:
        raise UnsupportedError(f"{type(model).__name__} {lacking}")
    if not all(module.weight.is_floating_point() for module in chosen):
        raise UnsupportedError("a quantized weight cannot be trained; use qlora instead")
    model.requires_grad_(False)
    for module in chosen:
        module.requires_grad_(True)
    return train_heads(model)


def size(linear: Linear) -> int:
    """Weights and bias."""
    return linear.weights + linear.bias * linear.outputs


def trainable(layout: Layout, _: Settings) -> int:
    """Weights and biases of attention; a classification head whole."""
    return layout.head + layout.sum(ATTENTION, size)


ATTENTION_TUNING = Method(
    name="attention-tuning",
    title="Attention tuning: attention weights only",
    family="selective",
    year=2022,
    citation="Touvron et al. 2022, arXiv 2203.09795",
    axes=Axes("no", "yes", "no", "none", "derived"),
    attach=attach,
    trainable=trainable,
    merge=lambda model: model,
)
