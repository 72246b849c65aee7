"""Bottleneck adapters: how they are built and where they are put, after or beside a sub-layer.

Letters: d hidden size, b = d / reduction. An adapter maps d to b to d with biases: 2db + b + d
parameters; what it yields is added. After a sub-layer it reads the output of the projection that
ends it, before dropout and the residual sum; parallel to feed-forward it reads what that reads.
Both are forward hooks. Its weights have the dtype of the base (fp32 if that is quantized), as
those of the AdapterHub library do, which follow ``model.to``; PEFT's are fp32. A classification
head that PEFT would train is trained as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import (
    feed_forward_output,
    hidden_size,
    is_linear,
    layers,
    width_of,
)
from peftadvisor.methods.sites import sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

REDUCTION = Hyperparameter(
    "reduction", 16, 8, 64, rule="16; more costs little quality", source="AdapterHub; T-Few"
)
AXES = Axes("yes", "yes", "no", "an extra feed-forward network", "seen")

Place = Callable[[Any, int], Any]
Make = Callable[[int], Any]
"""Makes the adapter of a layer, of whose width d it is told."""


def adapters(layout: Layout, reduction: int) -> int:
    """One adapter in each layer: 2db + b + d."""
    d, b = layout.hidden, max(1, layout.hidden // reduction)
    return layout.layers * (2 * d * b + b + d)


def attach_after(model: Any, places: tuple[Place, ...], reduction: int, activation: str) -> Any:
    """Freeze the model and put an adapter after each place of every layer.

    Raises:
        UnsupportedError: no layer has such places.
    """
    return attach_made(model, places, lambda size: _plain(size, reduction, activation))


def attach_made(model: Any, places: tuple[Place, ...], make: Make) -> Any:
    """Freeze the model and put what ``make`` makes after each place of every layer.

    Raises:
        UnsupportedError: no layer has such places.
    """
    put, width, attached = _putter(model, make), hidden_size(model), 0
    for layer in list(layers(model)):
        ends = [find(layer, width) for find in places]
        for number, module in enumerate(ends):
            if module is not None:
                module.register_forward_hook(_after(put(layer, f"adapter_{number}")))
                attached += 1
    return _done(model, attached)


def attach_parallel(model: Any, reduction: int, scale: float = 1.0, learned: bool = False) -> Any:
    """Freeze the model and put an adapter (relu) beside feed-forward in every layer.

    Its output is multiplied by ``scale``, which is trained if ``learned``.

    Raises:
        UnsupportedError: no layer has a feed-forward part.
    """

    def make(size: int) -> Any:
        from torch import nn

        adapter = _plain(size, reduction, "relu", scale, learned)
        nn.init.zeros_(adapter.up.weight)
        nn.init.zeros_(adapter.up.bias)
        return adapter

    return attach_made_parallel(model, make)


def attach_made_parallel(model: Any, make: Make) -> Any:
    """Freeze the model and put what ``make`` makes beside feed-forward in every layer.

    Raises:
        UnsupportedError: no layer has a feed-forward part.
    """
    put, width, attached = _putter(model, make), hidden_size(model), 0
    first: dict[int, Any] = {}
    for site in sites(model):
        if site.linear.role in ("up", "gate"):
            first.setdefault(site.linear.layer, site.module)
    for number, layer in enumerate(list(layers(model))):
        end = feed_forward_output(layer, width)
        start = first.get(number) if is_linear(end) else end
        if end is not None and start is not None:
            keep, add = _beside(put(layer, "parallel_adapter"))
            start.register_forward_pre_hook(keep, with_kwargs=True)
            end.register_forward_hook(add)
            attached += 1
    return _done(model, attached)


def bottleneck(
    down: Any, up: Any, activation: str, scale: float = 1.0, learned: bool = False
) -> Any:
    """What is added by an adapter of these two maps: scale · up(activation(down(x)))."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Bottleneck(nn.Module):
        """Down, activation, up, and a scale where it is not one."""

        def __init__(self, down: Any, up: Any) -> None:
            super().__init__()
            self.down, self.up = down, up
            self.scale = nn.Parameter(torch.full((1,), float(scale))) if learned else scale

        def forward(self, hidden: Any) -> Any:
            inner = self.down(hidden.to(next(self.down.parameters()).dtype))
            change = self.up(getattr(functional, activation)(inner))
            if learned or scale != 1:
                change = change * self.scale
            return change.to(hidden.dtype)

    return Bottleneck(down, up)


def _plain(
    width: int, reduction: int, activation: str, scale: float = 1.0, learned: bool = False
) -> Any:
    from torch import nn

    size = max(1, width // reduction)
    return bottleneck(nn.Linear(width, size), nn.Linear(size, width), activation, scale, learned)


def _putter(model: Any, make: Make) -> Callable[[Any, str], Any]:
    """Freezes the model; makes adapters as the model is, and gives them to layers."""
    import torch

    width = hidden_size(model)
    weight = next(p for p in model.parameters() if p.is_floating_point())
    device, dtype = weight.device, weight.dtype
    model.requires_grad_(False)

    def put(layer: Any, name: str) -> Any:
        with torch.device(device):
            adapter = make(width_of(layer, width)).to(dtype).train(layer.training)
        layer.add_module(name, adapter)
        return adapter

    return put


def _done(model: Any, attached: int) -> Any:
    if not attached:
        raise UnsupportedError(
            f"{type(model).__name__} has no attention or feed-forward layers to put adapters "
            "after; use lora-all or ln-tuning instead"
        )
    return train_heads(model)


def _after(adapter: Any) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        return _sum(output, adapter(hidden))

    return hook


def _beside(adapter: Any) -> tuple[Any, Any]:
    """Two hooks: one keeps what feed-forward reads, the other adds what the adapter makes of it."""
    held: list[Any] = []

    def keep(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        held[:] = [*inputs, *named.values()][:1]

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        return _sum(output, adapter(held.pop()))

    return keep, add


def _sum(output: Any, change: Any) -> Any:
    return (output[0] + change, *output[1:]) if isinstance(output, tuple) else output + change
