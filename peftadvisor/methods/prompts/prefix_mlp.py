"""Prefixes in every attention module, made by small networks (Li and Liang 2021, arXiv 2101.00190).

As in AdapterHub one network serves all self-attention of a stack, another all cross-attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.prompts.prefix_flat import AXES, TOKENS
from peftadvisor.methods.prompts.prefixes import add_prefixes, flat_size, made, made_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put made keys and values before those of all attention.

    Raises:
        UnsupportedError: attention of the model cannot take a prefix.
    """
    model.requires_grad_(False)
    add_prefixes(model, made(model, settings["virtual_tokens"], settings["width"]))
    return train_heads(model)


def trainable(layout: Layout, settings: Settings) -> int:
    """The networks and their embeddings (``made_size``); a head whole."""
    return made_size(layout, settings["virtual_tokens"], settings["width"]) + layout.head


def stored(layout: Layout, settings: Settings) -> int:
    """The keys and values; what made them is not kept."""
    return flat_size(layout, settings["virtual_tokens"]) + layout.head


PREFIX_MLP = Method(
    name="prefix-mlp",
    title="Prefix tuning in all attention, made by networks",
    family="soft prompt",
    year=2021,
    citation="Li and Liang 2021, arXiv 2101.00190",
    axes=AXES,
    hyperparameters=(
        TOKENS,
        Hyperparameter("width", 512, 512, 800, rule="of the networks' inside", source="AdapterHub"),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    quantized_base=True,
    several=True,
)
