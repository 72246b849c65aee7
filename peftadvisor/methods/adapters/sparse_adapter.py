"""SparseAdapter, Large-Sparse: wide adapters pruned before training (He et al. 2022).

arXiv 2210.04284. Houlsby's adapters, some times as wide, of whose weights as many are kept as a
plain adapter has: here the largest of each matrix as it starts. The paper's best choice (SNIP)
needs gradients of the task's data; by the paper even random ones hold up. Masks are kept as
buffers: pruned weights take training memory, but are no part of what must be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import adapters, attach_made, bottleneck
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.roles import attention_output, feed_forward_output

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """A pruned adapter after self-attention and one after feed-forward.

    Raises:
        UnsupportedError: the model has no such layers.
    """

    def make(width: int) -> Any:
        size, sparsity = max(1, width // settings["reduction"]), settings["sparsity"]
        return bottleneck(_masked(width, size, sparsity), _masked(size, width, sparsity), "silu")

    places = (lambda layer, _: attention_output(layer), feed_forward_output)
    return attach_made(model, places, make)


def kept(weights: int, sparsity: float) -> int:
    """How many of a matrix's weights are left."""
    return weights - int(weights * sparsity)


def _masked(inputs: int, outputs: int, sparsity: float) -> Any:
    import torch
    from torch import nn

    class Masked(nn.Linear):
        """A linear map of which only the weights in the mask count and are trained."""

        mask: torch.Tensor

        def __init__(self) -> None:
            super().__init__(inputs, outputs)
            largest = self.weight.detach().abs().flatten().argsort(descending=True)
            mask = torch.zeros(inputs * outputs, dtype=torch.bool)
            mask[largest[: kept(inputs * outputs, sparsity)]] = True
            self.register_buffer("mask", mask.view(outputs, inputs))
            with torch.no_grad():
                self.weight.mul_(self.mask)

        def forward(self, x: Any) -> Any:
            return nn.functional.linear(x, self.weight * self.mask, self.bias)

    return Masked()


def trainable(layout: Layout, settings: Settings) -> int:
    """Two adapters per layer of 2db + b + d, pruned weights with them; a head whole."""
    return 2 * adapters(layout, settings["reduction"]) + layout.head


def stored(layout: Layout, settings: Settings) -> int:
    """Of each db weights those that are kept, all biases, and the head."""
    d, b = layout.hidden, max(1, layout.hidden // settings["reduction"])
    return 2 * layout.layers * (2 * kept(d * b, settings["sparsity"]) + b + d) + layout.head


SPARSE_ADAPTER = Method(
    name="sparse-adapter",
    title="SparseAdapter: wide adapters pruned at the start",
    family="adapter",
    year=2022,
    citation="He et al. 2022, arXiv 2210.04284",
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=(
        Hyperparameter("reduction", 4, 4, 16, rule="a quarter of the plain one", source="paper"),
        Hyperparameter(
            "sparsity",
            0.75,
            0.4,
            0.8,
            rule="n times the width with 1 - 1/n keeps the number of weights",
            source="SparseAdapter paper",
        ),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    quantized_base=True,
    several=True,
)
