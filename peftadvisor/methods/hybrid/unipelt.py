"""UniPELT: gated LoRA, prefixes and adapters at once (Mao et al. 2022, arXiv 2110.07577).

A gate reads the hidden states that its part reads; as in AdapterHub it is one number for a
sequence, the mean of its tokens' sigmoids: in a decoder it sees later tokens too, and when it
generates from a cache the newest alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import Place, adapters, attach_made, bottleneck
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.hybrid.gates import gated, gated_prefix
from peftadvisor.methods.hybrid.hybrids import add_beside, low_rank
from peftadvisor.methods.peft_backed import QUERY_VALUE
from peftadvisor.methods.prompts import prefixes
from peftadvisor.methods.roles import attention_output, feed_forward_output, hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout, Linear

AFTER_FEED_FORWARD: tuple[Place, ...] = (feed_forward_output,)
AFTER_BOTH: tuple[Place, ...] = (lambda layer, _: attention_output(layer), feed_forward_output)


def attach(model: Any, settings: Mapping[str, Any], places: tuple[Place, ...], plain: bool) -> Any:
    """Freeze the model; add gated adapters, LoRA on query and value, and prefixes.

    Raises:
        UnsupportedError: attention of the model takes no prefix, or it lacks a place.
    """
    chosen = prefixes.attentions(model)

    def adapter(size: int) -> Any:
        return gated(_bottleneck(size, settings["reduction"]), size)

    def lora(linear: Linear) -> Any:
        return gated(low_rank(linear.inputs, linear.outputs, settings["rank"]), linear.inputs)

    attach_made(model, places, adapter)  # freezes the rest
    add_beside(model, lora)
    _add_prefixes(model, settings, chosen, plain)
    return model


def _bottleneck(size: int, reduction: int) -> Any:
    from torch import nn

    inner = max(1, size // reduction)
    return bottleneck(nn.Linear(size, inner), nn.Linear(inner, size), "relu")


def _add_prefixes(
    model: Any, settings: Settings, chosen: list[prefixes.Attention], plain: bool
) -> None:
    tokens, size = settings["virtual_tokens"], hidden_size(model)
    make = prefixes.flat(tokens) if plain else prefixes.made(model, tokens, settings["width"])
    prefixes.add_prefixes(model, lambda attention: gated_prefix(make(attention), size), chosen)
    for attention in chosen:
        keep = getattr(attention.module, prefixes.PREFIX).keep
        attention.module.register_forward_pre_hook(keep, with_kwargs=True)


def trainable(layout: Layout, settings: Settings, places: int, plain: bool) -> int:
    """LoRA r·(in + out), prefixes, adapters, and a gate of d + 1 for each; a head whole."""
    p, r, gate = settings["virtual_tokens"], settings["rank"], layout.hidden + 1
    lora = sum(r * (x.inputs + x.outputs) + x.inputs + 1 for x in layout.targets(None, QUERY_VALUE))
    if plain:
        put = prefixes.flat_size(layout, p)
    else:
        put = prefixes.made_size(layout, p, settings["width"])
    put += gate * len(layout.of("k qkv"))
    after = places * (adapters(layout, settings["reduction"]) + layout.layers * gate)
    return lora + put + after + layout.head


def _method(name: str, title: str, places: tuple[Place, ...], plain: bool) -> Method:
    width = Hyperparameter("width", 512, 512, 800, rule="what makes prefixes", source="AdapterHub")
    return Method(
        name=name,
        title=title,
        family="hybrid",
        year=2022,
        citation="Mao et al. 2022, arXiv 2110.07577",
        axes=Axes("maybe", "yes", "no", "LoRA, longer keys, an extra network, gates", "derived"),
        hyperparameters=(
            Hyperparameter("rank", 8, 4, 64, rule="of LoRA", source="paper", shapes="linear"),
            Hyperparameter("virtual_tokens", 10, 5, 30, rule="of the prefixes", source="paper"),
            Hyperparameter("reduction", 16, 8, 64, rule="of the adapters", source="paper"),
            *(() if plain else (width,)),
        ),
        attach=partial(attach, places=places, plain=plain),
        trainable=partial(trainable, places=len(places), plain=plain),
        stored=None if plain else partial(trainable, places=len(places), plain=True),
        quantized_base=True,
        several=True,
    )


UNIPELT = _method(
    "unipelt", "UniPELT: gated LoRA, prefixes, adapters", AFTER_FEED_FORWARD, plain=False
)
UNIPELT_FLAT = _method(
    "unipelt-flat", "UniPELT with flat prefixes, two adapters", AFTER_BOTH, plain=True
)
