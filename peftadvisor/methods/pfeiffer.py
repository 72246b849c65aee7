"""Pfeiffer adapters: one in each layer (Pfeiffer et al. 2020, arXiv 2005.00247)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.base import Method
from peftadvisor.methods.bottleneck import attach_after
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
    citation="Pfeiffer et al. 2020, arXiv 2005.00247",
    defaults={"reduction": 16},
    attach=attach,
    rules=("R18", "R21"),
)
