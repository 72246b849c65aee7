"""LoRETTA_adp: adapters of tensor trains (Yang et al. 2024, arXiv 2402.11417).

Each weight, d x b, is a train over up to three modes of d and two of b (8·8·12 and 8·8 for 768 x
64, as in the authors' table; other widths may be cut in another way there). Biases are plain. The
paper names the layer norms as trained too; here they stay frozen, as for the other adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import attach_made, bottleneck
from peftadvisor.methods.adapters.tensor_train import contracted, core_shapes, modes, train_of
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.roles import attention_output, feed_forward_output

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after self-attention and one after feed-forward.

    Raises:
        UnsupportedError: the model has no such layers.
    """

    def make(width: int) -> Any:
        from torch import nn

        size, rank = settings["bottleneck"], settings["tt_rank"]
        down, up = _train_linear(width, size, rank), _train_linear(size, width, rank)
        nn.init.zeros_(up.cores[-1])
        return bottleneck(down, up, "tanh")

    places = (lambda layer, _: attention_output(layer), feed_forward_output)
    return attach_made(model, places, make)


def cores(inputs: int, outputs: int, rank: int) -> list[tuple[int, int, int]]:
    """Shapes of the cores of one weight: three modes of the larger width, two of the other."""
    counts = (3, 2) if inputs > outputs else (2, 3)
    sides = [modes(width, n) for width, n in zip((inputs, outputs), counts, strict=True)]
    return core_shapes([size for side in sides for size in side], rank)


def _train_linear(inputs: int, outputs: int, rank: int) -> Any:
    import torch
    from torch import nn

    class TrainLinear(nn.Module):
        """x·W + bias, W being made of the cores at every call."""

        def __init__(self) -> None:
            super().__init__()
            self.cores = train_of(cores(inputs, outputs, rank), inputs**-0.5)
            self.bias = nn.Parameter(torch.zeros(outputs))

        def forward(self, x: Any) -> Any:
            weight = contracted(self.cores).view(inputs, outputs)
            return nn.functional.linear(x, weight.T, self.bias)

    return TrainLinear()


def trainable(layout: Layout, settings: Settings) -> int:
    """Two adapters per layer: t·n·t for each core, t at the ends being 1, and b + d; a head."""
    d, b, rank = layout.hidden, settings["bottleneck"], settings["tt_rank"]
    both = [*cores(d, b, rank), *cores(b, d, rank)]
    return int(2 * layout.layers * (sum(map(prod, both)) + b + d) + layout.head)


LORETTA_ADAPTER = Method(
    name="loretta-adapter",
    title="LoRETTA_adp: adapters of tensor trains",
    family="adapter",
    year=2024,
    citation="Yang et al. 2024, arXiv 2402.11417",
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=(
        Hyperparameter("bottleneck", 64, 8, 128, rule="width b of an adapter", source="paper"),
        Hyperparameter("tt_rank", 5, 2, 20, source="LoRETTA paper"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
