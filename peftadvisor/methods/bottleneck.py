"""Bottleneck adapters, what Houlsby's and Pfeiffer's share.

Letters: d hidden size, b = d / reduction. An adapter maps d to b to d with biases and adds its
input: 2db + b + d parameters. It sits in a forward hook on the projection that ends a sub-layer,
before dropout and the residual sum. Its weights have the dtype of the base (fp32 if that is
quantized), as those of the AdapterHub library do, which follow ``model.to``; PEFT's are fp32.
A classification head that PEFT would train is trained as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import hidden_size, layers, width_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

REDUCTION = Hyperparameter(
    "reduction", 16, 8, 64, rule="16; more costs little quality", source="AdapterHub; T-Few"
)
AXES = Axes("yes", "yes", "no", "an extra feed-forward network", "seen")

Place = Callable[[Any, int], Any]


def adapters(layout: Layout, reduction: int) -> int:
    """One adapter in each layer: 2db + b + d."""
    d, b = layout.hidden, max(1, layout.hidden // reduction)
    return layout.layers * (2 * d * b + b + d)


def attach_after(model: Any, places: tuple[Place, ...], reduction: int, activation: str) -> Any:
    """Freeze the model and put an adapter after each place of every layer.

    Raises:
        UnsupportedError: no layer has such places.
    """
    import torch

    width = hidden_size(model)
    weight = next(p for p in model.parameters() if p.is_floating_point())
    model.requires_grad_(False)
    attached = 0
    for layer in list(layers(model)):
        size = width_of(layer, width)
        ends = [find(layer, width) for find in places]
        for number, module in enumerate(ends):
            if module is None:
                continue
            with torch.device(weight.device):
                adapter = _bottleneck(size, max(1, size // reduction), activation)
            layer.add_module(f"adapter_{number}", adapter.to(weight.dtype))
            module.register_forward_hook(_after(adapter))
            attached += 1
    if not attached:
        raise UnsupportedError(
            f"{type(model).__name__} has no attention or feed-forward layers to put adapters "
            "after; use lora-all or ln-tuning instead"
        )
    return train_heads(model)


def _bottleneck(width: int, size: int, activation: str) -> Any:
    from torch import nn
    from torch.nn import functional

    class Bottleneck(nn.Module):
        """Down, activation, up, plus the input."""

        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Linear(width, size)
            self.up = nn.Linear(size, width)

        def forward(self, hidden: Any) -> Any:
            inner = self.down(hidden.to(self.down.weight.dtype))
            return hidden + self.up(getattr(functional, activation)(inner)).to(hidden.dtype)

    return Bottleneck()


def _after(adapter: Any) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (adapter(output[0]), *output[1:])
        return adapter(output)

    return hook
