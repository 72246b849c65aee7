"""Prefixes in every attention module, trained as they are (Li and Liang 2021, arXiv 2101.00190).

PEFT's prefix tuning leaves out the encoder and cross-attention; AdapterHub's does not, nor this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.prompts.prefixes import add_prefixes, flat, flat_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put trained keys and values before those of all attention.

    Raises:
        UnsupportedError: attention of the model cannot take a prefix.
    """
    model.requires_grad_(False)
    add_prefixes(model, flat(settings["virtual_tokens"]))
    return train_heads(model)


def trainable(layout: Layout, settings: Settings) -> int:
    """Keys and values of p tokens in each attention module; a head whole."""
    return flat_size(layout, settings["virtual_tokens"]) + layout.head


TOKENS = Hyperparameter(
    "virtual_tokens", 30, 10, 200, rule="30; longer for harder tasks", source="AdapterHub"
)
AXES = Axes("yes", "yes", "no", "longer keys and values", "derived")

PREFIX_FLAT = Method(
    name="prefix-flat",
    title="Prefix tuning in all attention, flat",
    family="soft prompt",
    year=2021,
    citation="Li and Liang 2021, arXiv 2101.00190",
    axes=AXES,
    hyperparameters=(TOKENS,),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
