"""Attention fusion: the layers' outputs mixed by a trained query (Cao et al., NAACL 2022).

Each token attends to its own states after every layer of the frozen backbone: weights are the
softmax over layers of q·h / √d plus a number per layer, and the mixture, scaled and shifted by
feature, is what the head reads. Keys and values are the states themselves: a reading of the
paper, whose count of parameters it has (some 3d), not of its code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.additive.side import attach_side
from peftadvisor.methods.base import Axes, Method, Settings

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, _: Settings) -> Any:
    """Freeze the model and mix what its (decoder's) layers put out.

    Raises:
        UnsupportedError: the model has no plain stack of layers.
    """
    return attach_side(model, _fusion, "attention-fusion")


def _fusion(width: int, layers: int) -> Any:
    import torch
    from torch import nn

    class Fusion(nn.Module):
        """The mixture of all states, token by token."""

        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(width) * width**-0.5)
            self.bias = nn.Parameter(torch.zeros(layers + 1))
            self.scale = nn.Parameter(torch.ones(width))
            self.shift = nn.Parameter(torch.zeros(width))

        def forward(self, states: list[Any]) -> Any:
            scores = torch.stack([state @ self.query for state in states], -1) * width**-0.5
            weights = torch.softmax(scores + self.bias, -1)
            mixed = weights[..., :1] * states[0]
            for number, state in enumerate(states[1:], 1):
                mixed = mixed + weights[..., number : number + 1] * state
            return mixed * self.scale + self.shift

    return Fusion()


def trainable(layout: Layout, _: Settings) -> int:
    """Query, scale, shift and a number per state of the last stack: 3d + L + 1; a head whole."""
    return 3 * layout.hidden + (layout.decoder_layers or layout.layers) + 1 + layout.head


ATTENTION_FUSION = Method(
    name="attention-fusion",
    title="Attention fusion: layers mixed by a trained query",
    family="additive",
    year=2022,
    citation="Cao et al., Attention Fusion, Findings of NAACL 2022",
    axes=Axes("yes", "yes", "yes", "a mixture of the layers' outputs", "recalled"),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
