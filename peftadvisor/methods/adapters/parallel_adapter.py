"""Parallel adapters beside feed-forward (He et al. 2021, arXiv 2110.04366)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import REDUCTION, adapters, attach_parallel
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter beside feed-forward, its output times a fixed scale.

    Raises:
        UnsupportedError: the model has no feed-forward layers.
    """
    return attach_parallel(model, settings["reduction"], settings["scale"])


def trainable(layout: Layout, settings: Settings) -> int:
    """Per layer 2db + b + d, b = d / reduction; a head whole."""
    return adapters(layout, settings["reduction"]) + layout.head


PARALLEL_ADAPTER = Method(
    name="parallel-adapter",
    title="Parallel adapters beside feed-forward",
    family="adapter",
    year=2021,
    citation="He et al. 2021, arXiv 2110.04366",
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=(
        REDUCTION,
        Hyperparameter("scale", 1.0, 1.0, 4.0, rule="fixed; 4 in the paper's best", source="paper"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
