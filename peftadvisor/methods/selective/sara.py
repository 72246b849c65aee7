"""SaRA: the weights nearest to zero are trained, as one vector per matrix.

Hu et al. 2024, arXiv 2409.06633. The vector takes the place of these weights when a layer runs;
backward keeps no patched matrix, makes a layer's gradient as a whole, picks the vector's part and
drops the rest. Here the smallest fraction of each linear map inside the layers is taken, where
the authors set one threshold; their low-rank loss and second choice of weights are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.selective.masked import kept
from peftadvisor.methods.sites import sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

VALUES, PLACES = "small_values", "small_places"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and train its smallest weights, with a classification head as a whole.

    Raises:
        UnsupportedError: the base is quantized, or has no linear maps.
    """
    from torch import nn

    chosen = list({id(site.module): site.module for site in sites(model)}.values())
    if not chosen or not all(module.weight.is_floating_point() for module in chosen):
        raise UnsupportedError(
            f"{type(model).__name__} has no linear weights in plain numbers inside its layers; "
            "sara needs a base that is not quantized, take qlora for one that is"
        )
    model.requires_grad_(False)
    for module in chosen:
        flat = module.weight.detach().reshape(-1)
        smallest = flat.abs().topk(kept(len(flat), settings), largest=False, sorted=False).indices
        places = smallest.sort().values
        module.register_buffer(PLACES, places)
        module.register_parameter(VALUES, nn.Parameter(flat.index_select(0, places)))
        module.forward = MethodType(_forward, module)
    return train_heads(model)


def _forward(module: Any, hidden: Any) -> Any:
    from torch import nn

    rows = isinstance(module, nn.Linear)
    places, values = getattr(module, PLACES), getattr(module, VALUES)
    return _patched_linear().apply(hidden, values, module.weight, places, module.bias, rows)


@cache
def _patched_linear() -> Any:
    """The linear map of a patched weight; torch is not imported before it is needed."""
    import torch
    from torch.nn import functional

    class PatchedLinear(torch.autograd.Function):
        """Weights are outputs x inputs if ``rows``, else the transpose (GPT-2)."""

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            hidden, values, weight, places, bias, rows = args
            ctx.save_for_backward(hidden, values, weight, places)
            ctx.rows = rows
            return functional.linear(hidden, _patched(values, weight, places, rows), bias)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            (grad,) = grads
            hidden, values, weight, places = ctx.saved_tensors
            back = None
            if ctx.needs_input_grad[0]:
                matrix = _patched(values, weight, places, ctx.rows).to(grad.dtype)
                back = (grad @ matrix).to(hidden.dtype)
                del matrix
            outer, inner = grad.flatten(0, -2), hidden.to(grad.dtype).flatten(0, -2)
            full = outer.T @ inner if ctx.rows else inner.T @ outer
            picked = full.flatten().index_select(0, places).to(values.dtype)
            return back, picked, None, None, None, None

    return PatchedLinear


def _patched(values: Any, weight: Any, places: Any, rows: bool) -> Any:
    """The weight with the trained values at their places, as outputs x inputs."""
    patched = weight.detach().reshape(-1).scatter(0, places, values.detach()).view_as(weight)
    return patched if rows else patched.T


def merge(model: Any) -> Any:
    """The model with the trained values in its weights."""
    for module in [m for m in model.modules() if PLACES in m._buffers]:
        module.weight.data.view(-1).scatter_(
            0, getattr(module, PLACES), getattr(module, VALUES).detach()
        )
        del module.forward
        delattr(module, VALUES)
        delattr(module, PLACES)
    return model


def trainable(layout: Layout, settings: Settings) -> int:
    """The fraction of the weights of each linear map; a classification head whole."""
    inside = [x for x in layout.linears if x.layer >= 0]
    return layout.head + sum(kept(x.weights, settings) for x in inside)


SARA = Method(
    name="sara",
    title="SaRA: the weights nearest to zero",
    family="selective",
    year=2024,
    citation="Hu et al. 2024, arXiv 2409.06633",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(Hyperparameter("fraction", 0.05, 0.005, 0.1, rule="more for larger data"),),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
