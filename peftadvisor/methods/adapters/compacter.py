"""Compacter and Compacter++: PHM adapters of rank 1 with one A (Mahabadi et al. 2021).

arXiv 2106.04647. The paper trains the layer norms as well; here they stay frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.phm import CITATION, HYPERPARAMETERS, attach_phm, widths
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.roles import attention_output, feed_forward_output

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

_RANK = Hyperparameter(
    "rank", 1, 1, 4, rule="rank of each B", source="Compacter paper", shapes="linear"
)
_AXES = Axes("yes", "yes", "no", "an extra feed-forward network", "derived")


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after self-attention and one after feed-forward.

    Raises:
        UnsupportedError: n does not divide the width, or the model has no such layers.
    """
    places = (lambda layer, _: attention_output(layer), feed_forward_output)
    return attach_phm(model, places, settings, settings["rank"], shared=True)


def attach_plus_plus(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after feed-forward.

    Raises:
        UnsupportedError: n does not divide the width, or the model has no such layers.
    """
    return attach_phm(model, (feed_forward_output,), settings, settings["rank"], shared=True)


def trainable(layout: Layout, settings: Settings) -> int:
    """Two adapters per layer of 2r(d + b) + b + d, and one A of n³; a head whole."""
    return 2 * _adapters(layout, settings) + settings["n"] ** 3 + layout.head


def trainable_plus_plus(layout: Layout, settings: Settings) -> int:
    """An adapter per layer of 2r(d + b) + b + d, and one A of n³; a head whole."""
    return _adapters(layout, settings) + settings["n"] ** 3 + layout.head


def _adapters(layout: Layout, settings: Settings) -> int:
    d, b = widths(layout, settings)
    return int(layout.layers * (2 * settings["rank"] * (d + b) + b + d))


COMPACTER = Method(
    name="compacter",
    title="Compacter: adapters of shared Kronecker factors",
    family="adapter",
    year=2021,
    citation=CITATION,
    axes=_AXES,
    hyperparameters=(*HYPERPARAMETERS, _RANK),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)

COMPACTER_PLUS_PLUS = Method(
    name="compacter-plus-plus",
    title="Compacter++: Compacter after feed-forward only",
    family="adapter",
    year=2021,
    citation=CITATION,
    axes=_AXES,
    hyperparameters=(*HYPERPARAMETERS, _RANK),
    attach=attach_plus_plus,
    trainable=trainable_plus_plus,
    quantized_base=True,
    several=True,
)
