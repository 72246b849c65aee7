"""KronA adapter with a residual, KronA_res^B (Edalati et al. 2022, arXiv 2212.10650).

Parallel to feed-forward, whose input x is a row: s·x·(A ⊗ B) + s_res·x is added to its output. Of
the width d = m·k, m being its largest divisor up to √d, A is m x k and B k x m, the smallest pair
there is. s is fixed, s_res trained from 1 on, and one factor starts at zero. This is recalled from
the paper, which has no public code; its sizes of A and B for T5 may be others.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import attach_made_parallel
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """A Kronecker product with a residual beside feed-forward.

    Raises:
        UnsupportedError: the model has no feed-forward layers.
    """
    return attach_made_parallel(
        model, lambda width: _product(width, settings["scale"], settings["residual"])
    )


def divisor(width: int) -> int:
    """The largest divisor up to the square root."""
    return next(m for m in range(isqrt(width), 0, -1) if width % m == 0)


def _product(width: int, scale: float, residual: float) -> Any:
    import torch
    from torch import nn

    m = divisor(width)
    k = width // m

    class Product(nn.Module):
        """Aᵀ·X·B for x as a matrix X of m x k, plus the residual."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(m, k) * m**-0.5)
            self.b = nn.Parameter(torch.zeros(k, m))
            self.residual = nn.Parameter(torch.full((1,), float(residual)))

        def forward(self, hidden: Any) -> Any:
            x = hidden.to(self.a.dtype)
            mixed = (x.unflatten(-1, (m, k)) @ self.b).transpose(-1, -2) @ self.a
            change = mixed.transpose(-1, -2).flatten(-2) * scale + x * self.residual
            return change.to(hidden.dtype)

    return Product()


def trainable(layout: Layout, _: Settings) -> int:
    """Two factors of d and a scale per layer: L(2d + 1); a head whole."""
    return layout.layers * (2 * layout.hidden + 1) + layout.head


KRONA_ADAPTER = Method(
    name="krona-adapter",
    title="KronA adapter: a Kronecker product beside feed-forward",
    family="adapter",
    year=2022,
    citation="Edalati et al. 2022, arXiv 2212.10650",
    axes=Axes("yes", "yes", "no", "a Kronecker product beside feed-forward", "derived"),
    hyperparameters=(
        Hyperparameter("scale", 1.0, 0.25, 16.0, rule="fixed"),
        Hyperparameter("residual", 1.0, 0.0, 1.0, rule="start; 0 changes nothing at first"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
