"""Pfeiffer adapters: one in each layer (Pfeiffer et al. 2020, arXiv 2005.00247)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.adapters.bottleneck import AXES, REDUCTION, adapters, attach_after
from peftadvisor.methods.base import Method
from peftadvisor.methods.roles import feed_forward_output


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after feed-forward.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    return attach_after(model, (feed_forward_output,), settings["reduction"], "relu")


PFEIFFER = Method(
    name="pfeiffer",
    title="Pfeiffer adapters: after feed-forward",
    family="adapter",
    year=2020,
    citation="Pfeiffer et al. 2020, arXiv 2005.00247",
    axes=AXES,
    hyperparameters=(REDUCTION,),
    attach=attach,
    trainable=lambda layout, settings: adapters(layout, settings["reduction"]) + layout.head,
    quantized_base=True,
    several=True,
    rules=("R18", "R21"),
)
