"""Houlsby adapters: two in each layer (Houlsby et al. 2019, arXiv 1902.00751)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.adapters.bottleneck import AXES, REDUCTION, adapters, attach_after
from peftadvisor.methods.base import Method
from peftadvisor.methods.roles import attention_output, feed_forward_output


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after self-attention and one after feed-forward; none after cross-attention.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    places = (lambda layer, _: attention_output(layer), feed_forward_output)
    return attach_after(model, places, settings["reduction"], "silu")


HOULSBY = Method(
    name="houlsby",
    title="Houlsby adapters: after attention and feed-forward",
    family="adapter",
    year=2019,
    citation="Houlsby et al. 2019, arXiv 1902.00751",
    axes=AXES,
    hyperparameters=(REDUCTION,),
    attach=attach,
    trainable=lambda layout, settings: 2 * adapters(layout, settings["reduction"]) + layout.head,
    quantized_base=True,
    several=True,
    rules=("R2", "R18"),
)
