"""S4: which layers get adapters, prefixes, biases and LoRA (Chen et al. 2023, arXiv 2301.01821).

Layers are cut in four groups, the outer ones small (a spindle), each with its own parts. All
layers get as many parameters, half of them for each of the two parts that have a size; biases,
those of linear layers, come on top. An encoder and a decoder are one row of layers here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import attach_made, bottleneck
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.hybrid.hybrids import add_beside, low_rank
from peftadvisor.methods.peft_backed import QUERY_VALUE
from peftadvisor.methods.prompts import prefixes
from peftadvisor.methods.roles import feed_forward_output, layers
from peftadvisor.methods.sites import layout_of, sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout, Linear

GROUPS = ("adapter lora", "adapter prefix", "adapter prefix bias", "prefix bias lora")


@dataclass(frozen=True, slots=True)
class Part:
    """What one layer gets: inner size of an adapter, tokens, rank, and whether biases; 0: none."""

    adapter: int
    tokens: int
    rank: int
    biases: bool


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and give each layer the parts of its group.

    Raises:
        UnsupportedError: attention of the model takes no prefix, or it has no feed-forward.
    """
    layout = layout_of(model)
    parts = plan(layout, settings["share"])
    chosen = [a for a in prefixes.attentions(model) if parts[a.layer].tokens]
    biases = [s.module.bias for s in sites(model) if s.linear.bias and parts[s.linear.layer].biases]
    _add_adapters(model, parts)  # freezes the rest
    add_beside(model, _lora(parts), lambda linear: parts[linear.layer].rank > 0)
    prefixes.add_prefixes(model, _prefix(parts), chosen)
    for bias in biases:
        bias.requires_grad_(True)
    return model


def _add_adapters(model: Any, parts: list[Part]) -> None:
    from torch import nn

    inner = max(part.adapter for part in parts)
    chosen = {id(layer) for layer, part in zip(layers(model), parts, strict=True) if part.adapter}

    def place(layer: Any, width: int) -> Any:
        return feed_forward_output(layer, width) if id(layer) in chosen else None

    def make(size: int) -> Any:
        return bottleneck(nn.Linear(size, inner), nn.Linear(inner, size), "relu")

    attach_made(model, (place,), make)


def _lora(parts: list[Part]) -> Any:
    return lambda x: low_rank(x.inputs, x.outputs, parts[x.layer].rank)


def _prefix(parts: list[Part]) -> prefixes.Make:
    return lambda attention: prefixes.flat(parts[attention.layer].tokens)(attention)


def plan(layout: Layout, share: float) -> list[Part]:
    """The parts of every layer; together some ``share`` of the weights of linear layers."""
    inside: list[list[Linear]] = [[] for _ in range(layout.layers)]
    for linear in layout.linears:
        if linear.layer >= 0:
            inside[linear.layer].append(linear)
    half = int(share * sum(x.weights for row in inside for x in row) / layout.layers / 2)
    groups = [GROUPS[number] for number in spindle(layout.layers)]
    return [_part(row, group, half, layout) for row, group in zip(inside, groups, strict=True)]


def spindle(count: int) -> list[int]:
    """The group, 0 to 3, of each of so many layers: a sixth, a third, a third, a sixth."""
    outer = -(-count // 6) if count >= 4 else 0
    second = (count - 2 * outer + 1) // 2
    sizes = (outer, second, count - 2 * outer - second, outer)
    return [group for group, size in enumerate(sizes) for _ in range(size)]


def _part(linears: list[Linear], group: str, half: int, layout: Layout) -> Part:
    """Sizes of which each takes half of a layer's parameters, and at least one."""
    token = prefixes.key_values(linears, layout.key_width)
    rank = sum(x.inputs + x.outputs for x in linears if x.role in QUERY_VALUE.split())
    costs = {"adapter": 2 * layout.hidden + 1, "prefix": token, "lora": rank}
    size = {n: max(1, half // c) if n in group and c else 0 for n, c in costs.items()}
    return Part(size["adapter"], size["prefix"], size["lora"], "bias" in group)


def trainable(layout: Layout, settings: Settings) -> int:
    """Adapters 2db + b + d, prefixes p·(keys + values), LoRA r·(in + out), biases; a head whole."""
    parts, d = plan(layout, settings["share"]), layout.hidden
    total = layout.head + sum(2 * d * x.adapter + x.adapter + d for x in parts if x.adapter)
    for linear in layout.linears:
        part = parts[linear.layer]
        if linear.layer >= 0:
            total += part.tokens * prefixes.key_values([linear], layout.key_width)
            if linear.role in QUERY_VALUE.split():
                total += part.rank * (linear.inputs + linear.outputs)
            if linear.bias and part.biases:
                total += linear.outputs
    return total


S4 = Method(
    name="s4",
    title="S4: adapters, prefixes, biases and LoRA by groups of layers",
    family="hybrid",
    year=2023,
    citation="Chen et al. 2023, arXiv 2301.01821",
    axes=Axes("yes", "yes", "no", "an extra network, longer keys, LoRA", "derived"),
    hyperparameters=(
        Hyperparameter("share", 0.005, 0.001, 0.05, rule="of the weights", source="paper"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
