"""Diff pruning: a sparse difference to each weight is trained, with gates that learn to close.

Guo et al. 2021, arXiv 2012.07463. W + z·δ with z hard concrete: sigmoid(α + noise) stretched to
[-1.5, 1.5] and clamped to [0, 1]; without noise when evaluated. The L0 penalty, λ·Σ sigmoid(α),
enters by its gradient. After ``prune_after`` steps the fraction of largest z·δ is kept and its
gates stay open, the others shut. Here on the linear maps inside the layers; the authors change
all weights and add a gate per matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.selective.masked import kept, threshold
from peftadvisor.methods.sites import sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

NAME = "difference"
START, EDGE, EPSILON = 5.0, 1.5, 1e-6
SHUT = 1e4


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and train a difference and gates beside each linear map of its layers.

    Raises:
        UnsupportedError: the base is quantized, or has no linear maps.
    """
    chosen = [site.module for site in sites(model)]
    if not chosen or not all(module.weight.is_floating_point() for module in chosen):
        raise UnsupportedError(
            f"{type(model).__name__} has no linear weights in plain numbers inside its layers; "
            "diff-pruning needs a base that is not quantized, take qlora for one that is"
        )
    model.requires_grad_(False)
    for module in chosen:
        module.add_module(NAME, _difference(module.weight).train(module.training))
        module.difference_hooks = [
            module.register_forward_pre_hook(_change),
            module.register_forward_hook(_restore, always_call=True),
        ]
    model.pruning_settings = dict(settings)
    return train_heads(model)


def _difference(weight: Any) -> Any:
    import torch
    from torch import nn

    make = partial(torch.full, weight.shape, device=weight.device, dtype=torch.float32)

    class Difference(nn.Module):
        """δ and α of one weight, in fp32."""

        def __init__(self) -> None:
            super().__init__()
            self.delta = nn.Parameter(make(0.0))
            self.alpha = nn.Parameter(make(START))

        def forward(self) -> Any:
            """z·δ, with a new draw of z in training."""
            gate: Any = self.alpha
            if self.training:
                gate = gate + torch.rand_like(gate).logit_(EPSILON)
            return (2 * EDGE * gate.sigmoid() - EDGE).clamp(0, 1) * self.delta

    return Difference()


def _change(module: Any, _: Any) -> None:
    """While the module runs, the changed weight hides its own."""
    own = module._parameters["weight"]
    module.__dict__["weight"] = own + module.difference().to(own.dtype)


def _restore(module: Any, *_: Any) -> None:
    module.__dict__.pop("weight", None)


def before_step(model: Any, step: int) -> None:
    """Add the penalty's gradient; once, shut all gates but those of the largest differences."""
    import torch

    settings = model.pruning_settings
    found = [m.difference for m in model.modules() if hasattr(m, NAME)]
    with torch.no_grad():
        if step == settings["prune_after"]:
            _prune(found, settings)
        for part in found:
            if part.alpha.grad is not None:
                open_ = part.alpha.sigmoid()
                part.alpha.grad.add_(open_ - open_ * open_, alpha=settings["penalty"])


def _prune(found: list[Any], settings: Settings) -> None:
    import torch

    sizes = [part.eval()().abs() for part in found]
    flat = torch.cat([size.flatten() for size in sizes])
    least = threshold(flat, kept(flat.numel(), settings))
    for part, size in zip(found, sizes, strict=True):
        part.train().alpha.fill_(-SHUT).masked_fill_(size >= least, SHUT)


def merge(model: Any) -> Any:
    """The model with the differences added to its weights, and gates gone."""
    import torch

    for module in [m for m in model.modules() if hasattr(m, NAME)]:
        with torch.no_grad():
            module.weight += module.difference.eval()().to(module.weight.dtype)
        for hook in module.difference_hooks:
            hook.remove()
        del module.difference_hooks
        delattr(module, NAME)
    return model


def _weights(layout: Layout) -> int:
    return sum(x.weights for x in layout.linears if x.layer >= 0)


def trainable(layout: Layout, _: Settings) -> int:
    """A difference and a gate per weight; a classification head whole."""
    return layout.head + 2 * _weights(layout)


def stored(layout: Layout, settings: Settings) -> int:
    """The fraction of differences that pruning keeps; a classification head whole."""
    return layout.head + kept(_weights(layout), settings)


DIFF_PRUNING = Method(
    name="diff-pruning",
    title="Diff pruning: a sparse difference to all weights",
    family="selective",
    year=2021,
    citation="Guo et al. 2021, arXiv 2012.07463",
    axes=Axes("yes", "no", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("fraction", 0.005, 0.001, 0.01, rule="0.5 % of all", source="paper"),
        Hyperparameter("penalty", 1.25e-7, 1e-8, 1e-6, rule="λ of the L0 norm"),
        Hyperparameter("prune_after", 1000, 100, 100000, rule="most of all steps"),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    merge=merge,
    before_step=before_step,
)
