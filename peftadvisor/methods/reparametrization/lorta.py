"""LoRTA: one low-rank tensor for the updates of all q, k, v and o (Hounie et al. 2024).

arXiv 2410.04060. The tensor (width x head width x heads x layers x projections) is a sum of r
outer products, whose factors are shared by all layers. A projection of fewer heads, or of another
width, takes the leading rows of a factor; o is taken transposed. Heads are as wide as
``head_width`` says, or its largest divisor that fits all projections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.reparametrization.beside import attach_beside, merge_beside
from peftadvisor.methods.sites import Linear, layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

NAME, ROLES = "lorta", "q k v o"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put the shared tensor's slices beside q, k, v and o.

    Raises:
        UnsupportedError: the model has no such projections, or fuses them.
    """
    import torch

    layout = layout_of(model)
    inside = [x for x in layout.of(ROLES) if x.layer >= 0]
    if layout.of("qkv") or not layout.of("q") or not layout.of("v"):
        raise UnsupportedError(
            f"{type(model).__name__} has no query, key and value projections apart from each "
            "other, which LoRTA's tensor needs; use lora instead"
        )
    sizes = _sizes(inside, settings["head_width"])
    with torch.device(next(model.parameters()).device):
        factors = _factors(sizes, settings["rank"])
    modules = {place: n for n, place in enumerate(_modules(inside))}
    chosen = {**settings, "target_modules": sorted({x.path for x in inside})}
    make = partial(_slice, factors=factors, modules=modules)
    model = attach_beside(model, chosen, make)
    model.add_module(NAME, factors)
    return model


def _modules(inside: Iterable[Linear]) -> dict[tuple[int, bool], None]:
    """The attention modules: one in each layer, two where there is cross-attention."""
    return dict.fromkeys((x.layer, x.cross) for x in inside)


def _sides(linear: Linear) -> tuple[int, int]:
    """Widths towards the hidden states and towards the heads."""
    widths = (linear.inputs, linear.outputs)
    return widths[::-1] if linear.role == "o" else widths


def _sizes(inside: list[Linear], head_width: int) -> dict[str, int]:
    """The modes of the tensor, all over the given projections."""
    heads = [_sides(x)[1] for x in inside]
    head = max(n for n in range(1, head_width + 1) if gcd(*heads) % n == 0)
    return {
        "width": max(_sides(x)[0] for x in inside),
        "head": head,
        "heads": max(heads) // head,
        "layers": len(_modules(inside)),
        "projections": len(ROLES.split()),
    }


def _factors(sizes: Mapping[str, int], rank: int) -> Any:
    """A factor per mode; that of the head width starts at zero, so that nothing is changed."""
    import torch
    from torch import nn

    made = {mode: torch.empty(size, rank) for mode, size in sizes.items()}
    for mode, factor in made.items():
        nn.init.normal_(factor, std=sizes["width"] ** -0.5 if mode == "width" else 1.0)
    nn.init.zeros_(made["head"])
    return nn.ParameterDict(made)


def _slice(linear: Linear, settings: Mapping[str, Any], factors: Any, modules: Any) -> Any:
    from torch import nn

    place, projection = modules[linear.layer, linear.cross], ROLES.split().index(linear.role)
    width, heads = _sides(linear)
    scale = settings["alpha"] / settings["rank"]

    class Slice(nn.Module):
        """The update of one projection; the factors belong to the model."""

        def sides(self) -> tuple[Any, Any]:
            count = heads // len(factors["head"])
            weight = factors["layers"][place] * factors["projections"][projection] * scale
            inner = factors["heads"][:count, None] * factors["head"]
            sides = factors["width"][:width], (inner * weight).flatten(0, 1)
            return sides[::-1] if linear.role == "o" else sides

        def forward(self, x: Any) -> Any:
            one, other = self.sides()
            return x.to(one.dtype) @ one @ other.T

        def matrix(self) -> Any:
            one, other = self.sides()
            return other @ one.T

    return Slice()


def merge(model: Any) -> Any:
    """The model with the tensor's slices added to its weights, and the tensor taken away."""
    model = merge_beside(model)
    delattr(model, NAME)
    return model


def trainable(layout: Layout, settings: Settings) -> int:
    """r·(d + h + H + A + 4): head width h, H heads, A attention modules; a head whole."""
    inside = [x for x in layout.of(ROLES) if x.layer >= 0]
    sizes = _sizes(inside, settings["head_width"])
    return layout.head + int(settings["rank"]) * sum(sizes.values())


LORTA = Method(
    name="lorta",
    title="LoRTA: a low-rank tensor over all attention projections",
    family="reparametrization",
    year=2024,
    citation="Hounie et al. 2024, arXiv 2410.04060",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 16, 4, 64, shapes="linear"),
        Hyperparameter("alpha", 16, 4, 64, shapes="none"),
        Hyperparameter("head_width", 64, 32, 256, rule="the width of the model's heads"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
)
