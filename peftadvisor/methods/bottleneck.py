"""Bottleneck adapters in the layers of a transformer.

Houlsby et al. 2019 (arXiv 1902.00751) put two in each layer, Pfeiffer et al. 2020 (arXiv
2005.00247) one.

Letters: d hidden size, b = d / reduction. An adapter maps d to b to d with biases and adds its
input: 2db + b + d parameters. Its weights have the dtype of the base, as after ``model.to``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.roles import attention_output, feed_forward_output, hidden_size, layers


def attach_houlsby(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after self-attention and one after feed-forward; none after cross-attention."""
    return _attach(model, settings, (attention_output, feed_forward_output), "silu")


def attach_pfeiffer(model: Any, settings: Mapping[str, Any]) -> Any:
    """An adapter after feed-forward."""
    return _attach(model, settings, (feed_forward_output,), "relu")


def _attach(
    model: Any, settings: Mapping[str, Any], places: tuple[Any, ...], activation: str
) -> Any:
    import torch

    width = hidden_size(model)
    size = max(1, width // settings["reduction"])
    model.requires_grad_(False)
    weight = next(p for p in model.parameters() if p.is_floating_point())
    attached = 0
    for layer in layers(model):
        for number, find in enumerate(places):
            module = find(layer, width)
            if module is None:
                continue
            with torch.device(weight.device):
                adapter = _bottleneck(width, size, activation).to(weight.dtype)
            layer.add_module(f"adapter_{number}", adapter)
            module.register_forward_hook(_after(adapter))
            attached += 1
    if not attached:
        raise UnsupportedError(
            f"{type(model).__name__} has no attention or feed-forward layers to put adapters after"
        )
    return model


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
            return hidden + self.up(getattr(functional, activation)(self.down(hidden)))

    return Bottleneck()


def _after(adapter: Any) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (adapter(output[0]), *output[1:])
        return adapter(output)

    return hook


HOULSBY = Method(
    name="houlsby",
    title="Houlsby adapters: after attention and feed-forward",
    family="adapter",
    citation="Houlsby et al. 2019, arXiv 1902.00751",
    defaults={"reduction": 16},
    attach=attach_houlsby,
    rules=("R2", "R18"),
)

PFEIFFER = Method(
    name="pfeiffer",
    title="Pfeiffer adapters: after feed-forward",
    family="adapter",
    citation="Pfeiffer et al. 2020, arXiv 2005.00247",
    defaults={"reduction": 16},
    attach=attach_pfeiffer,
    rules=("R18", "R21"),
)
