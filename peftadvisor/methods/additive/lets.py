"""LeTS: a bidirectional LSTM over the frozen backbone's layers (Fu et al., NeurIPS 2021).

The half of Learn-to-Share that saves computation: the backbone runs once, without gradients, and
the task reads what all of its layers put out. The other half, sparse differences of weights found
by a search, is left out. The LSTM runs over the layers of each token and is added to the last
state; the paper pools tokens first, for classification only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.additive.side import attach_side
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Freeze the model and put an LSTM over what its (decoder's) layers put out.

    Raises:
        UnsupportedError: the model has no plain stack of layers.
    """
    return attach_side(model, lambda width, _: _lstm(width, settings["size"]), "lets")


def _lstm(width: int, size: int) -> Any:
    import torch
    from torch import nn

    class OverLayers(nn.Module):
        """Last state plus the projected ends of both directions."""

        def __init__(self) -> None:
            super().__init__()
            self.up_gates = nn.Linear(width + size, 4 * size)
            self.down_gates = nn.Linear(width + size, 4 * size)
            self.out = nn.Linear(2 * size, width)
            nn.init.zeros_(self.out.weight)

        def forward(self, states: list[Any]) -> Any:
            ends = [self.run(self.up_gates, states), self.run(self.down_gates, states[::-1])]
            return states[-1] + self.out(torch.cat(ends, -1))

        def run(self, gates: Any, states: list[Any]) -> Any:
            hidden = cell = states[0].new_zeros(*states[0].shape[:-1], size)
            for state in states:
                raw = gates(torch.cat([state, hidden], -1))
                entry, forget, output, new = raw.chunk(4, -1)
                cell = forget.sigmoid() * cell + entry.sigmoid() * new.tanh()
                hidden = output.sigmoid() * cell.tanh()
            return hidden

    return OverLayers()


def trainable(layout: Layout, settings: Settings) -> int:
    """Two directions of four gates, 4n(d + n + 1) each, and out of both 2nd + d; a head whole."""
    d, n = layout.hidden, settings["size"]
    return 2 * 4 * n * (d + n + 1) + 2 * n * d + d + layout.head


LETS = Method(
    name="lets",
    title="LeTS: an LSTM over the layers of a frozen backbone",
    family="additive",
    year=2021,
    citation="Fu et al., Learn-to-Share, NeurIPS 2021",
    axes=Axes("yes", "yes", "yes", "an LSTM over the layers' outputs", "recalled"),
    hyperparameters=(Hyperparameter("size", 128, 32, 512, rule="width of the LSTM"),),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
