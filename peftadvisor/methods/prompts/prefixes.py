"""Prefixes: trained keys and values before those of each attention module, whatever the model.

transformers' attention modules look their kernel up by the name in their config. Each gets a copy
of its config that names a function of ours, which puts the prefix before keys and values, widens
the mask and the position bias by columns that all queries see, and calls the kernel named before.
So a prefix has no position, needs no cache, and works with checkpointing. Letters: p tokens of
prefix, d hidden size, m width of what makes prefixes. Weights have the dtype of the base.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.additive.side import on_device
from peftadvisor.methods.roles import hidden_size, layers
from peftadvisor.methods.sites import layout_of, sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout, Linear

PREFIX = "prefix"
SOURCES = "prefix_sources"
KEYS = "k v qkv"

Group = tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class Attention:
    """An attention module, its layer, and the widths of a token's keys and values.

    ``group`` tells cross-attention, and an encoder's layers from a decoder's.
    """

    module: Any
    layer: int
    group: Group
    keys: int
    values: int


Make = Callable[[Attention], Any]
"""Makes a module that, called, yields keys [p, keys] and values [p, values], or with a batch."""


def add_prefixes(model: Any, make: Make, chosen: list[Attention] | None = None) -> None:
    """Put a prefix into each of these attention modules (None: all).

    Raises:
        UnsupportedError: attention of the model cannot take one.
    """
    for attention in attentions(model) if chosen is None else chosen:
        module = attention.module
        prefix = on_device(model, partial(make, attention))
        module.add_module(PREFIX, prefix.train(module.training))
        module.config = copy.copy(module.config)
        module.config._attn_implementation_internal = _register(module)


def attentions(model: Any) -> list[Attention]:
    """Every attention module of the (language) model.

    Raises:
        UnsupportedError: some are not called as transformers' attention usually is, have no plain
            keys and values, or attend by flex_attention.
    """
    layout, inside = layout_of(model), {id(s.module): s.linear for s in sites(model)}
    found: list[Attention] = []
    for layer in layers(model):
        for module in filter(_is_called_by_name, layer.modules()):
            linears = [inside[id(m)] for m in module.modules() if id(m) in inside]
            found += _attention(module, [x for x in linears if x.role in KEYS.split()], layout)
    used = sum(1 if x.role == "qkv" else 0.5 for x in layout.of(KEYS))
    if not found or len(found) != used:
        raise UnsupportedError(
            f"{type(model).__name__} has attention without plain keys and values, or with code of "
            "its own, that takes no prefix; use prompt-tuning or lora instead"
        )
    if any("flex" in (x.module.config._attn_implementation or "") for x in found):
        raise UnsupportedError("flex_attention has masks that take no prefix; use sdpa instead")
    return found


def _attention(module: Any, linears: list[Linear], layout: Layout) -> Iterator[Attention]:
    """The record of one module, if it has one projection each of keys and values, or one fused."""
    roles = {x.role: x for x in linears}
    if len(linears) == len(roles) and set(roles) in ({"k", "v"}, {"qkv"}):
        keys, values = (roles[r].outputs if r in roles else layout.key_width for r in "kv")
        first = linears[0]
        yield Attention(module, first.layer, group_of(first, layout), keys, values)


def group_of(linear: Linear, layout: Layout) -> Group:
    """Whether a projection belongs to cross-attention, and whether to a decoder's layers."""
    return linear.cross, linear.layer >= layout.layers - layout.decoder_layers


def _is_called_by_name(module: Any) -> bool:
    forward = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return (
        forward is not None
        and "ALL_ATTENTION_FUNCTIONS" in forward.co_names
        and hasattr(module, "config")
        and hasattr(sys.modules[type(module).__module__], "eager_attention_forward")
    )


def _register(module: Any) -> str:
    from transformers import AttentionInterface

    kernel = module.config._attn_implementation or "eager"
    name = f"prefixed_{kernel}"
    AttentionInterface.register(name, partial(_attend, kernel))
    return name


def _attend(
    kernel: str, module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any
) -> Any:
    """Attention of [b, h, s, ·] queries to the prefix and the keys, by the named kernel."""
    from torch.nn import functional

    home = sys.modules[type(module).__module__]
    attend = home.ALL_ATTENTION_FUNCTIONS.get_interface(kernel, home.eager_attention_forward)
    keys, values = getattr(module, PREFIX)()
    length = keys.shape[-2]
    if mask is None and kernel == "sdpa":
        mask = _causal(module, query, key, options.get("is_causal"))
    if mask is not None:
        seen = mask.dim() == 2 or not mask.is_floating_point()
        mask = functional.pad(mask, (length, 0), value=int(seen))
    if options.get("position_bias") is not None:
        options["position_bias"] = functional.pad(options["position_bias"], (length, 0))
    return attend(module, query, _before(keys, key), _before(values, value), mask, **options)


def _causal(module: Any, query: Any, key: Any, is_causal: bool | None) -> Any:
    """The mask that sdpa would stand for by itself, which would see a prefix as the first keys."""
    import torch

    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    rows, columns = query.shape[2], key.shape[2]
    if rows == 1 or not causal:
        return None
    return torch.ones(1, 1, rows, columns, dtype=torch.bool, device=query.device).tril()


def _before(prefix: Any, states: Any) -> Any:
    """[p, h·w] or [b, p, h·w] before [b, h, s, w]."""
    import torch

    batch, heads, _, width = states.shape
    split = prefix.to(states.dtype).view(*prefix.shape[:-1], heads, width).transpose(-3, -2)
    return torch.cat([split.expand(batch, -1, -1, -1), states], dim=2)


def flat(tokens: int) -> Make:
    """Makes prefixes that are trained as they are."""
    import torch
    from torch import nn

    class Flat(nn.Module):
        """Keys and values."""

        def __init__(self, attention: Attention) -> None:
            super().__init__()
            self.keys = nn.Parameter(torch.randn(tokens, attention.keys))
            self.values = nn.Parameter(torch.randn(tokens, attention.values))

        def forward(self) -> Any:
            return self.keys, self.values

    return Flat


def made(model: Any, tokens: int, width: int) -> Make:
    """Makes prefixes that are made by a network: up(tanh(down(embedding))).

    The embedding and ``down`` are one for each group of attention, and are added to the model.
    """
    from torch import nn

    groups = sorted({attention.group for attention in attentions(model)})
    size = hidden_size(model)
    sources = {g: on_device(model, lambda: _source(tokens, size, width)) for g in groups}
    model.add_module(SOURCES, nn.ModuleList(sources.values()).train(model.training))

    class Made(nn.Module):
        """Keys and values of one attention module; the source belongs to the model."""

        def __init__(self, attention: Attention, source: Any) -> None:
            super().__init__()
            self.sizes = [attention.keys, attention.values]
            self.up = nn.Linear(width, sum(self.sizes))
            self.source = (source,)

        def forward(self) -> Any:
            return self.up(self.source[0]()).split(self.sizes, dim=-1)

    return lambda attention: Made(attention, sources[attention.group])


def _source(tokens: int, size: int, width: int) -> Any:
    import torch
    from torch import nn

    class Source(nn.Module):
        """tanh(down(embedding)), [p, m]."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Parameter(torch.randn(tokens, size))
            self.down = nn.Linear(size, width)

        def forward(self) -> Any:
            return torch.tanh(self.down(self.embedding))

    return Source()


def flat_size(layout: Layout, tokens: int) -> int:
    """Keys and values of every attention module, p·(keys + values)."""
    return tokens * key_values(layout.linears, layout.key_width)


def made_size(layout: Layout, tokens: int, width: int) -> int:
    """Per group pd + dm + m; per attention module (m + 1)·(keys + values)."""
    d, m = layout.hidden, width
    groups = {group_of(x, layout) for x in layout.of(KEYS)}
    up = (m + 1) * key_values(layout.linears, layout.key_width)
    return len(groups) * (tokens * d + d * m + m) + up


def key_values(linears: Iterable[Linear], key_width: int) -> int:
    """Widths of the keys and values that these projections put out, added up."""
    found = (x for x in linears if x.role in KEYS.split())
    return sum(2 * key_width if x.role == "qkv" else x.outputs for x in found)
