"""Sparse LoRA: low-rank factors of which a fixed random share is trained, the rest being zero.

After Hu et al. 2021 (arXiv 2106.09685). The places are drawn by a seed and so need not be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

from peftadvisor.methods.base import Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE
from peftadvisor.methods.reparametrization import lora
from peftadvisor.methods.reparametrization.beside import attach_beside, merge_beside
from peftadvisor.methods.sites import Linear

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put sparse factors beside query and value projections.

    Raises:
        UnsupportedError: the model has no such projections.
    """
    return attach_beside(model, settings, _sparse)


def _values(numel: int, settings: Settings) -> int:
    return max(1, round(settings["density"] * numel))


def _sparse(linear: Linear, settings: Mapping[str, Any]) -> Any:
    import torch
    from torch import nn
    from torch.nn.functional import linear as product

    rank, density = settings["rank"], settings["density"]
    shapes = {"a": (rank, linear.inputs), "b": (linear.outputs, rank)}

    class Sparse(nn.Module):
        """B·A·x by factors that are made from their values at every call."""

        a: nn.Parameter
        b: nn.Parameter

        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(settings["dropout"])
            for name, (rows, columns) in shapes.items():
                count = _values(rows * columns, settings)
                self.register_parameter(name, nn.Parameter(torch.zeros(count)))
                place = f"{linear.layer}.{linear.path}.{name}"
                places = _places(rows * columns, count, place, settings["seed"])
                self.register_buffer(f"{name}_places", places, persistent=False)
            bound = (density * linear.inputs) ** -0.5
            nn.init.uniform_(self.a, -bound, bound)

        def factor(self, name: str) -> Any:
            values, (rows, columns) = getattr(self, name), shapes[name]
            dense = values.new_zeros(rows * columns)
            return dense.scatter_(0, getattr(self, f"{name}_places"), values).view(rows, columns)

        def forward(self, x: Any) -> Any:
            inner = product(self.dropout(x.to(self.a.dtype)), self.factor("a"))
            return product(inner, self.factor("b")) * (settings["alpha"] / rank)

        def matrix(self) -> Any:
            return self.factor("b") @ self.factor("a") * (settings["alpha"] / rank)

    return Sparse()


def _places(numel: int, count: int, name: str, seed: int) -> Any:
    """Where the values stand in the flat factor; on the meta device their number alone."""
    import torch

    like = torch.empty(count, dtype=torch.int64)
    if like.is_meta:
        return like
    drawn = torch.Generator("cpu").manual_seed(seed + crc32(name.encode()))
    chosen = torch.randperm(numel, generator=drawn, device="cpu")[:count]
    return chosen.sort().values.to(like.device)


def trainable(layout: Layout, settings: Settings) -> int:
    """A share of both factors per adapted layer, ρ·r·in + ρ·r·out; a classification head whole."""
    chosen, r = layout.targets(settings["target_modules"], QUERY_VALUE), settings["rank"]
    widths = [width for linear in chosen for width in (linear.inputs, linear.outputs)]
    return layout.head + sum(_values(r * width, settings) for width in widths)


SPARSE_LORA = Method(
    name="sparse-lora",
    title="LoRA with sparse factors on query and value projections",
    family="hybrid",
    year=2021,
    citation="after Hu et al. 2021, arXiv 2106.09685",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=(
        *lora.HYPERPARAMETERS,
        Hyperparameter("density", 0.25, 0.05, 0.5, rule="the share that is trained"),
        Hyperparameter("seed", 0, rule="where; the same seed must be used to load"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge_beside,
    quantized_base=True,
    several=True,
)
