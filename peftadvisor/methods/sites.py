"""The linear layers of a model by role, and their sizes: what methods attach to and count with.

``sites`` finds them in the real modules; ``layout_of`` keeps the sizes alone, which is what the
formulas of trained parameters are written in. Letters there: d hidden size, L layers, r rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

from peftadvisor.methods.peft_backed import QUERY_VALUE, heads, known_query_value
from peftadvisor.methods.roles import (
    attention_role,
    hidden_size,
    is_cross,
    is_norm,
    language_part,
    layers,
    linears,
    width_in,
    width_of,
    width_out,
)

Role = Literal["q", "k", "v", "qkv", "o", "up", "gate", "down", "other"]


@dataclass(frozen=True, slots=True)
class Linear:
    """Sizes of one linear layer: ``layer`` counts through the model, -1 is outside all layers.

    ``path`` is its place in the model.
    """

    path: str
    role: Role
    inputs: int
    outputs: int
    bias: bool
    cross: bool
    layer: int

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        return self.inputs * self.outputs

    @property
    def name(self) -> str:
        """The last two parts of its path."""
        return ".".join(self.path.split(".")[-2:])


@dataclass(frozen=True, slots=True)
class Site:
    """One linear layer of a real model, with its path and module."""

    path: str
    module: Any
    linear: Linear


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes that formulas read.

    ``key_width`` is that of all keys of a token; ``decoder_layers`` are those with
    cross-attention (0 where there is no encoder). ``norms`` counts the weights and biases of all
    normalization layers, ``norm_biases`` their biases, ``biases`` all others, ``head`` what is
    trained whole for classification (its bias is counted there alone), ``total`` everything.
    """

    model_type: str
    hidden: int
    key_width: int
    vocabulary: int
    layers: int
    decoder_layers: int
    linears: tuple[Linear, ...]
    norms: int
    norm_biases: int
    biases: int
    head: int
    total: int

    def of(self, roles: str) -> tuple[Linear, ...]:
        """The linear layers of these roles (apart by spaces)."""
        wanted = roles.split()
        return tuple(linear for linear in self.linears if linear.role in wanted)

    def sum(self, roles: str, count: Callable[[Linear], int]) -> int:
        """``count`` added up over the linear layers of these roles."""
        return sum(map(count, self.of(roles)))

    def targets(self, named: Any, roles: str) -> tuple[Linear, ...]:
        """The linear layers that ``target_modules`` names as PEFT reads it; None: those of roles.

        A list holds ends of paths, a string is "all-linear" or matches whole paths. For query and
        value PEFT's table of model types goes before roles.
        """
        if named is None and roles == QUERY_VALUE:
            named = known_query_value(self.model_type)
        if named is None or named == "all-linear":
            return self.of(roles) if named is None else self.linears
        if isinstance(named, str):
            return tuple(x for x in self.linears if re.fullmatch(named, x.path))
        return tuple(
            x for x in self.linears if f".{x.path}".endswith(tuple(f".{n}" for n in named))
        )


def sites(model: Any) -> Iterator[Site]:
    """Every linear layer inside the layers of the (language) model, in order, with its role."""
    width = hidden_size(model)
    paths = {id(module): path for path, module in model.named_modules()}
    for number, layer in enumerate(layers(model)):
        size = width_of(layer, width)
        for path, module in linears(layer):
            role = attention_role(path) or _feed_forward_role(path, module, size)
            yield Site(
                path=paths[id(module)],
                module=module,
                linear=_linear(paths[id(module)], module, cast(Role, role), number),
            )


def layout_of(model: Any) -> Layout:
    """The sizes of a model to which nothing is attached yet."""
    inside = list(sites(model))
    prefix, part = language_part(model)
    found = [site.linear for site in inside]
    found += _outside(model, {site.path for site in inside})
    norms = {p for p, module in part.named_modules(prefix=prefix) if is_norm(module)}
    named = dict(part.named_parameters(prefix=prefix))
    in_norms = {name for name in named if name.rpartition(".")[0] in norms}
    whole = {id(p) for module in heads(model) for p in module.parameters()}
    in_heads = {name for name, p in named.items() if id(p) in whole}
    biases = {name for name in named if name.endswith("bias")}
    return Layout(
        model_type=model.config.model_type,
        hidden=hidden_size(model),
        key_width=_key_width(model.config.get_text_config()),
        vocabulary=getattr(model.config.get_text_config(), "vocab_size", 0),
        layers=1 + max((linear.layer for linear in found), default=-1),
        decoder_layers=len({linear.layer for linear in found if linear.cross}),
        linears=tuple(found),
        norms=sum(named[name].numel() for name in in_norms),
        norm_biases=sum(named[name].numel() for name in in_norms & biases),
        biases=sum(named[name].numel() for name in biases - in_norms - in_heads),
        head=sum(named[name].numel() for name in in_heads),
        total=sum(p.numel() for p in model.parameters()),
    )


def _key_width(config: Any) -> int:
    """Key heads times their width, fewer than query heads if grouped; 0 without attention."""
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "num_heads", 0)
    if not heads:
        return 0
    width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    width = width or (getattr(config, "hidden_size", None) or config.d_model) // heads
    return int((getattr(config, "num_key_value_heads", None) or heads) * width)


def _linear(path: str, module: Any, role: Role, layer: int) -> Linear:
    return Linear(
        path=path,
        role=role,
        inputs=width_in(module) or 0,
        outputs=width_out(module) or 0,
        bias=getattr(module, "bias", None) is not None,
        cross=is_cross(path),
        layer=layer,
    )


def _outside(model: Any, inside: set[str]) -> Iterator[Linear]:
    """Linear layers outside of all layers (a pooler, a vision tower), but for output layers."""
    left_out = {id(model.get_output_embeddings())}
    left_out |= {id(m) for head in heads(model) for m in head.modules()}
    for path, module in linears(model):
        if path not in inside and id(module) not in left_out:
            yield _linear(path, module, "other", -1)


def _feed_forward_role(path: str, module: Any, size: int) -> Role:
    if width_out(module) == size:
        return "down"
    if width_in(module) != size:
        return "other"
    return "gate" if "gate" in path.rpartition(".")[2] else "up"


def common_divisor(layout: Layout, named: Any, largest: int, *, outputs: bool = True) -> int:
    """The largest number up to ``largest`` that divides the widths of all these layers.

    For methods that cut layers into blocks: inputs, and ``outputs`` if they are cut as well.
    ``named`` as in ``Layout.targets``, None: query and value.
    """
    chosen = layout.targets(named, "q v qkv")
    widths = [x.inputs for x in chosen] + [x.outputs for x in chosen if outputs]
    common = math.gcd(*widths)
    return max((n for n in range(1, largest + 1) if common % n == 0), default=1)
