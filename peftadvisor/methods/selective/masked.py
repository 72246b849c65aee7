"""Sparse training by masked gradients, what FISH Mask, SAM and LT-SFT share.

Every weight has a gradient and optimizer states, as in full fine-tuning; right before each update
gradients are multiplied by a mask of booleans, which each weight has beside it as a buffer. Those
of a classification head are left whole. Weight decay is off: it would move what is masked out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import MakeOptimizer, Settings
from peftadvisor.methods.full import full
from peftadvisor.methods.peft_backed import heads

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

BISECTIONS = 40
MASK = "_mask"


def attach_masks(model: Any, settings: Settings, make: Callable[[Any], Any]) -> Any:
    """Train everything; each weight gets a mask that ``make`` starts.

    Raises:
        UnsupportedError: the base is quantized.
    """
    model = full.attach(model, settings)
    whole = {id(p) for head in heads(model) for p in head.parameters()}
    for module in list(model.modules()):
        for name, p in list(module.named_parameters(recurse=False)):
            if p.requires_grad and id(p) not in whole:
                module.register_buffer(name + MASK, make(p))
                whole.add(id(p))
    model.mask_settings, model.mask_chosen = dict(settings), False
    return model


def attach_drawn(model: Any, settings: Settings) -> Any:
    """The same with random masks, until there are data to choose by.

    Raises:
        UnsupportedError: the base is quantized.
    """
    import torch

    fraction = settings["fraction"]
    return attach_masks(model, settings, lambda p: torch.rand(p.shape, device=p.device) < fraction)


def masked(model: Any) -> Iterator[tuple[Any, str, Any, Any]]:
    """Module, name, weight and mask of all that has one."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            mask = module._buffers.get(name + MASK)
            if mask is not None:
                yield module, name, p, mask


def optimizer(model: Any, make: MakeOptimizer) -> Any:
    """The user's optimizer without weight decay; masks are to be chosen from the start."""
    made = make([p for p in model.parameters() if p.requires_grad])
    for group in made.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
    model.mask_optimizer, model.mask_chosen = weakref.ref(made), False
    return made


def choose(model: Any, score: Callable[[Any, str, Any], Any]) -> None:
    """Keep the fraction of weights with the highest scores in all of the model."""
    import torch

    found = list(masked(model))
    with torch.no_grad():
        flat = torch.cat([score(module, name, p).flatten() for module, name, p, _ in found])
        least = threshold(flat, kept(flat.numel(), model.mask_settings))
        parts = flat.split([p.numel() for _, _, p, _ in found])
        for (_, _, p, mask), part in zip(found, parts, strict=True):
            torch.ge(part.view(p.shape), least, out=mask)
    model.mask_chosen = True


def threshold(flat: Any, count: int) -> Any:
    """What ``count`` values at most reach: bisected, without a branch or a sort."""
    import torch

    low, high = torch.zeros_like(flat[0]), flat.max()
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        many = (flat >= middle).sum() > count
        low, high = torch.where(many, middle, low), torch.where(many, high, middle)
    return high


def mask_gradients(model: Any) -> None:
    """Leave no gradient where the mask is off."""
    for _, _, p, mask in masked(model):
        if p.grad is not None:
            p.grad.mul_(mask)


def choose_by_gradient(model: Any, step: int) -> None:
    """Before the first update take the largest squared gradients; mask before every update."""
    if step == 0 and not model.mask_chosen:
        choose(model, _size_of_gradient)
    mask_gradients(model)


def _size_of_gradient(_module: Any, _name: str, p: Any) -> Any:
    """In order of its square, and safe from underflow."""
    import torch

    return torch.zeros_like(p) if p.grad is None else p.grad.abs()


def merge(model: Any) -> Any:
    """The model without masks."""
    for module, name, _, _ in list(masked(model)):
        delattr(module, name + MASK)
    return model


def kept(weights: int, settings: Settings) -> int:
    """How many weights are trained of those that have masks."""
    return max(1, int(settings["fraction"] * weights))


def trainable(layout: Layout, _: Settings) -> int:
    """Every parameter has a gradient."""
    return layout.total


def stored(layout: Layout, settings: Settings) -> int:
    """The fraction of weights that the mask keeps; a classification head whole."""
    return layout.head + kept(layout.total - layout.head, settings)
