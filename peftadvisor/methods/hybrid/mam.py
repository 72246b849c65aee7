"""Mix-and-match adapters: prefixes and parallel adapters (He et al. 2021, arXiv 2110.04366).

A few made keys and values go before those of all attention, and a wide scaled adapter goes
beside feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import adapters, attach_parallel
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.prompts.prefix_flat import TOKENS
from peftadvisor.methods.prompts.prefixes import (
    add_prefixes,
    attentions,
    flat_size,
    made,
    made_size,
)

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any], *, learned: bool) -> Any:
    """Freeze the model, put adapters beside feed-forward and prefixes into all attention.

    Raises:
        UnsupportedError: attention of the model takes no prefix, or it has no feed-forward.
    """
    chosen = attentions(model)
    attach_parallel(model, settings["reduction"], settings["scale"], learned)
    add_prefixes(model, made(model, settings["virtual_tokens"], settings["width"]), chosen)
    return model


def trainable(layout: Layout, settings: Settings, *, learned: bool) -> int:
    """Prefixes as of prefix-mlp, an adapter per layer, and its scale if learned; a head whole."""
    prefixes = made_size(layout, settings["virtual_tokens"], settings["width"])
    return prefixes + _beside(layout, settings, learned)


def stored(layout: Layout, settings: Settings, *, learned: bool) -> int:
    """The same with the prefixes alone, not what made them."""
    return flat_size(layout, settings["virtual_tokens"]) + _beside(layout, settings, learned)


def _beside(layout: Layout, settings: Settings, learned: bool) -> int:
    return adapters(layout, settings["reduction"]) + learned * layout.layers + layout.head


def _method(name: str, title: str, scale: Hyperparameter, learned: bool) -> Method:
    return Method(
        name=name,
        title=title,
        family="hybrid",
        year=2021,
        citation="He et al. 2021, arXiv 2110.04366",
        axes=Axes("maybe", "yes", "no", "longer keys and values, and an extra network", "derived"),
        hyperparameters=(
            TOKENS,
            Hyperparameter("width", 800, 512, 800, rule="what makes prefixes", source="AdapterHub"),
            Hyperparameter("reduction", 2, 2, 16, rule="of the adapters", source="paper"),
            scale,
        ),
        attach=partial(attach, learned=learned),
        trainable=partial(trainable, learned=learned),
        stored=partial(stored, learned=learned),
        quantized_base=True,
        several=True,
    )


MAM = _method(
    "mam",
    "MAM: prefixes and parallel adapters",
    Hyperparameter("scale", 4.0, 1.0, 4.0, rule="fixed, of the adapters", source="paper"),
    learned=False,
)
MAM_SCALED = _method(
    "mam-scaled",
    "MAM with trained scales of the adapters",
    Hyperparameter("scale", 1.0, 1.0, 4.0, rule="where the trained scales start"),
    learned=True,
)
