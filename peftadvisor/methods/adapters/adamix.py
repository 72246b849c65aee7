"""AdaMix: a mixture of adapters, one drawn at random each step (Wang et al. 2022).

arXiv 2205.12410. M experts for the down projection of an adapter after feed-forward, and for the
up projection too if ``mixed`` is "both"; by default that is shared, as in the authors' runs. Each
step draws an expert for every layer; in evaluation their weights are averaged, and one adapter is
all that need be kept. The experts are one tensor, so gradients and optimizer states are held for
all of them from the first step on. The paper's consistency loss, which takes a second forward
pass, is left to the training loop.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.bottleneck import adapters, attach_made, bottleneck
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.roles import feed_forward_output

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """A mixture of adapters after feed-forward.

    Raises:
        UnsupportedError: the model has no such layers.
    """

    def make(width: int) -> Any:
        size, count = max(1, width // settings["reduction"]), settings["experts"]
        up = _experts(size, width, count if settings["mixed"] == "both" else 1)
        return bottleneck(_experts(width, size, count), up, "gelu")

    return attach_made(model, (feed_forward_output,), make)


def draw_experts(model: Any, step: int) -> None:
    """Choose the experts of the next step; the same for the same step."""
    generator = random.Random(step)
    for module in model.modules():
        if hasattr(module, "drawn_expert"):
            module.drawn_expert = generator.randrange(len(module.weight))


def _experts(inputs: int, outputs: int, count: int) -> Any:
    import torch
    from torch import nn

    class Experts(nn.Module):
        """The drawn expert's linear map, in evaluation the average of all."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(count, outputs, inputs) * 0.02)
            self.bias = nn.Parameter(torch.zeros(count, outputs))
            self.drawn_expert = 0

        def forward(self, x: Any) -> Any:
            n = self.drawn_expert
            if self.training or count == 1:
                return nn.functional.linear(x, self.weight[n], self.bias[n])
            return nn.functional.linear(x, self.weight.mean(0), self.bias.mean(0))

    return Experts()


def trainable(layout: Layout, settings: Settings) -> int:
    """M(db + b) + U(db + d) per layer, U being M if up is mixed, else 1; a head whole."""
    d, b = layout.hidden, max(1, layout.hidden // settings["reduction"])
    up = settings["experts"] if settings["mixed"] == "both" else 1
    return int(layout.layers * (settings["experts"] * (d * b + b) + up * (d * b + d)) + layout.head)


def stored(layout: Layout, settings: Settings) -> int:
    """The average of the experts: one adapter per layer, and the head."""
    return adapters(layout, settings["reduction"]) + layout.head


ADAMIX = Method(
    name="adamix",
    title="AdaMix: a mixture of adapters, averaged afterwards",
    family="adapter",
    year=2022,
    citation="Wang et al. 2022, arXiv 2205.12410",
    axes=Axes("yes", "yes", "no", "an extra feed-forward network", "derived"),
    hyperparameters=(
        Hyperparameter("reduction", 16, 16, 64, rule="16 on BERT base", source="the authors' runs"),
        Hyperparameter("experts", 4, 2, 8, rule="4", source="AdaMix paper"),
        Hyperparameter("mixed", "down", choices=("down", "both"), source="the authors' runs"),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    before_step=draw_experts,
    quantized_base=True,
    several=True,
)
