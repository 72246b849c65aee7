"""Layers that take turns in being trained, what LISA's and BAdam's share.

A layer stands for its linear maps here; its norms are for the method to freeze or not. Layers
change between two updates: those that had their turn are frozen right before an update whose
gradients they still take, and give up their optimizer states before the next.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import MakeOptimizer
from peftadvisor.methods.selective.attention_tuning import size
from peftadvisor.methods.sites import Layout, sites

Choose = Callable[[int, int], Collection[int]]
"""Which layers are trained in a turn, of how many."""


@dataclass(slots=True)
class Turns:
    """The parameters of each layer that take turns, and the optimizer that is made for them."""

    layers: list[list[Any]]
    choose: Choose
    interval: int
    optimizer: Any = None

    def take(self, turn: int) -> None:
        """Train the layers of this turn, freeze the others."""
        chosen = self.choose(turn, len(self.layers))
        for number, parameters in enumerate(self.layers):
            for p in parameters:
                p.requires_grad_(number in chosen)


def attach_turns(model: Any, choose: Choose, interval: int) -> Any:
    """Leave ``requires_grad`` on the layers of the first turn; all else stays as it is.

    Raises:
        UnsupportedError: the base is quantized, or its layers are no linear maps for the most.
    """
    stack: dict[int, list[Any]] = {}
    for site in sites(model):
        stack.setdefault(site.linear.layer, []).extend(site.module.parameters())
    own = {id(p): p.numel() for parameters in stack.values() for p in parameters}
    whole = {id(p): p.numel() for p in model.parameters()}
    if not all(p.is_floating_point() for p in model.parameters()):
        raise UnsupportedError("a quantized layer cannot be trained; use qlora instead")
    fused = sum(p.numel() for p in model.parameters() if p.dim() > 2 and id(p) not in own)
    if not own or 2 * fused > sum(whole.values()):
        raise UnsupportedError(
            f"{type(model).__name__} holds most of its layers outside of linear maps (experts as "
            "one tensor), which cannot take turns; use galore or lora instead"
        )
    count = 1 + max(stack)
    model.turns = Turns([stack.get(n, []) for n in range(count)], choose, interval)
    model.turns.take(0)
    return model


def ever_trained(model: Any) -> Iterator[Any]:
    """The parameters of all layers that take turns."""
    return (p for layer in model.turns.layers for p in layer)


def optimizer(model: Any, make: MakeOptimizer) -> Any:
    """The user's optimizer over all that is ever trained; what has no gradient takes no state."""
    turning = {id(p) for p in ever_trained(model)}
    made = make([p for p in model.parameters() if p.requires_grad or id(p) in turning])
    model.turns.optimizer = weakref.ref(made)
    return made


def before_step(model: Any, step: int) -> None:
    """Free what frozen layers held; every ``interval`` steps choose those of the next step."""
    turns = model.turns
    made = turns.optimizer and turns.optimizer()
    for p in (p for p in ever_trained(model) if not p.requires_grad):
        p.grad = None
        if made is not None:
            made.state.pop(p, None)
    if (step + 1) % turns.interval == 0:
        turns.take((step + 1) // turns.interval)


def resting(layout: Layout, choose: Choose) -> int:
    """Weights and biases of the layers that are frozen in the first turn."""
    chosen = choose(0, layout.layers)
    return sum(size(x) for x in layout.linears if x.layer >= 0 and x.layer not in chosen)


def turning(layout: Layout) -> int:
    """Weights and biases of all layers that take turns."""
    return sum(size(x) for x in layout.linears if x.layer >= 0)
