"""Scaled parallel adapters beside feed-forward (He et al. 2021, arXiv 2110.04366)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import adapters, attach_parallel
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter with a trained scale beside feed-forward.

    Raises:
        UnsupportedError: the model has no feed-forward layers.
    """
    return attach_parallel(model, settings["reduction"], settings["scale"], learned=True)


def trainable(layout: Layout, settings: Settings) -> int:
    """Per layer 2db + b + d and a scale, b = d / reduction; a head whole."""
    return adapters(layout, settings["reduction"]) + layout.layers + layout.head


SCALED_PARALLEL = Method(
    name="scaled-parallel",
    title="Scaled parallel adapters beside feed-forward",
    family="adapter",
    year=2021,
    citation="He et al. 2021, arXiv 2110.04366",
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=(
        Hyperparameter("reduction", 2, 2, 16, rule="wide: b of 512 for d of 1024", source="paper"),
        Hyperparameter("scale", 1.0, 1.0, 4.0, rule="where the trained scale starts"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
