"""LoReFT: hidden states of a few tokens are edited in a low-rank subspace after every layer.

Wu et al. 2024, arXiv 2404.03592. A state h at one of the first or last p positions becomes
h + Rᵀ(W h + b - R h), where the r rows of R are orthonormal and W, b are trained freely. As in the
paper's smaller variant both ends share one edit. Unlike in the authors' library the last positions
are those of the whole sequence, and R comes of a QR decomposition: torch's own parametrization
keeps a d x d basis and is lost to the first step of weight decay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import hidden_size, layers, width_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put an edit after each of the chosen layers, in a forward hook.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    import torch

    found = list(layers(model))
    wanted = range(len(found)) if settings["layers"] is None else settings["layers"]
    if not found or not set(wanted) <= set(range(len(found))):
        raise UnsupportedError(
            f"{type(model).__name__} has {len(found)} layers with attention, not all those that "
            "LoReFT would edit; name others by layers, or use lora-all"
        )
    width = hidden_size(model)
    device = next(model.parameters()).device
    model.requires_grad_(False)
    for layer in (found[number] for number in wanted):
        size = width_of(layer, width)
        with torch.device(device):
            edit = _edit(size, min(settings["rank"], size))
        layer.add_module("reft", edit)
        layer.register_forward_hook(_edited(edit, settings["positions"]))
    return train_heads(model)


def _edit(size: int, rank: int) -> Any:
    import torch
    from torch import nn

    class Edit(nn.Module):
        """Rᵀ(W h + b - R h)."""

        def __init__(self) -> None:
            super().__init__()
            self.source = nn.Linear(size, rank)
            self.rotation = nn.Parameter(torch.randn(size, rank))

        def forward(self, hidden: Any) -> Any:
            states = hidden.to(self.source.weight.dtype)
            rotation = torch.linalg.qr(self.rotation).Q
            return ((self.source(states) - states @ rotation) @ rotation.T).to(hidden.dtype)

    return Edit()


def _edited(edit: Any, positions: int) -> Any:
    """A hook that edits the first and last positions; not single tokens, as in generation."""
    import torch

    def of(hidden: Any) -> Any:
        length = hidden.shape[1]
        if length == 1:
            return hidden
        if length <= 2 * positions:
            return hidden + edit(hidden)
        start, rest, end = hidden.split([positions, length - 2 * positions, positions], dim=1)
        changed = edit(torch.cat([start, end], dim=1))
        first, last = changed.split(positions, dim=1)
        return torch.cat([start + first, rest, end + last], dim=1)

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        return (of(output[0]), *output[1:]) if isinstance(output, tuple) else of(output)

    return hook


def trainable(layout: Layout, settings: Settings) -> int:
    """R and W of d x r and b of r in each layer: 2dr + r."""
    r = min(settings["rank"], layout.hidden)
    chosen = layout.layers if settings["layers"] is None else len(settings["layers"])
    return layout.head + chosen * (2 * layout.hidden * r + r)


LOREFT = Method(
    name="loreft",
    title="LoReFT: low-rank edits of a few hidden states",
    family="additive",
    year=2024,
    citation="Wu et al. 2024, arXiv 2404.03592",
    axes=Axes("yes", "yes", "no", "edits of a few hidden states", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 4, 1, 32, source="paper"),
        Hyperparameter("positions", 4, 1, 11, rule="at each end of the input", source="paper"),
        Hyperparameter("layers", None, rule="numbers of layers; all by default", source="paper"),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
)
