"""Parameterized hypercomplex multiplication (PHM), what Compacter's adapters are made of.

A weight d x b is the sum of n Kronecker products of A (n x n) and B (d/n x b/n); B may be a
product of two factors of rank r. A PHM bottleneck adapter, b being the multiple of n next below
d / reduction and n at least, maps d to b to d by gelu and has biases b + d.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.adapters.bottleneck import Place, attach_made, bottleneck
from peftadvisor.methods.base import Hyperparameter
from peftadvisor.methods.roles import hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

CITATION = "Mahabadi et al. 2021, arXiv 2106.04647"
HYPERPARAMETERS = (
    Hyperparameter("reduction", 32, 8, 64, rule="32 on T5 base", source="Compacter paper"),
    Hyperparameter("n", 4, 4, 12, rule="Kronecker products per weight", source="Compacter paper"),
)
RULE = "phm_rule"


def attach_phm(
    model: Any,
    places: tuple[Place, ...],
    settings: Mapping[str, Any],
    rank: int | None = None,
    shared: bool = False,
) -> Any:
    """Freeze the model and put PHM adapters after these places; all have one A if ``shared``.

    Raises:
        UnsupportedError: n does not divide the width, or the model has no such places.
    """
    import torch
    from torch import nn

    n, width = settings["n"], hidden_size(model)
    if width % n:
        raise UnsupportedError(
            f"{type(model).__name__} is {width} wide, which n = {n} does not divide; "
            "set n to a divisor of the width"
        )
    weight = next(p for p in model.parameters() if p.is_floating_point())
    with torch.device(weight.device):
        rule = nn.ParameterList([_rule(n)] if shared else []).to(weight.dtype)

    def make(size: int) -> Any:
        inner = inner_width(size, settings)
        down = _phm_linear(size, inner, n, rank, rule)
        return bottleneck(down, _phm_linear(inner, size, n, rank, rule), "gelu")

    model = attach_made(model, places, make)
    if shared:
        model.add_module(RULE, rule)
    return model


def inner_width(width: int, settings: Mapping[str, Any]) -> int:
    """b: d / reduction as a multiple of n."""
    n = settings["n"]
    return int(n * max(1, width // (settings["reduction"] * n)))


def widths(layout: Layout, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Widths d and b of a PHM adapter."""
    return layout.hidden, inner_width(layout.hidden, settings)


def _rule(n: int) -> Any:
    import torch
    from torch import nn

    return nn.Parameter(torch.randn(n, n, n) * 0.1)


def _phm_linear(inputs: int, outputs: int, n: int, rank: int | None, shared: Any) -> Any:
    import torch
    from torch import nn

    rows, columns = inputs // n, outputs // n
    shapes = [(n, rows, rank), (n, rank, columns)] if rank else [(n, rows, columns)]

    class PHMLinear(nn.Module):
        """x·W + bias; A is the shared one or its own."""

        def __init__(self, shared: Any) -> None:
            super().__init__()
            self.shared = (shared,)  # which belongs to the model
            self.factors = nn.ParameterList(torch.empty(shape) for shape in shapes)
            for factor in self.factors:
                nn.init.normal_(factor, std=(2 / (factor.shape[1] + factor.shape[2])) ** 0.5)
            self.rule = nn.ParameterList([] if len(shared) else [_rule(n)])
            self.bias = nn.Parameter(torch.zeros(outputs))

        def forward(self, x: Any) -> Any:
            first, *second = self.factors
            blocks = first @ second[0] if second else first
            rule = (*self.shared[0], *self.rule)[0]
            sums = rule.flatten(1).T @ blocks.flatten(1)
            whole = sums.view(n, n, rows, columns).transpose(1, 2).reshape(inputs, outputs)
            return nn.functional.linear(x, whole.T, self.bias)

    return PHMLinear(shared)
