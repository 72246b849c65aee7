"""LT-SFT: the weights that full fine-tuning changes most are trained, from the start again.

Ansell et al. 2022, arXiv 2110.07560. After ``first_steps`` of full fine-tuning the mask is chosen,
the weights go back to where they were, which needs a copy of them until then, and Adam begins
anew. A classification head goes on. The authors' L1 pull towards the start is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.selective import masked

START = "_start"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train everything, with a mask and a copy beside each weight.

    Raises:
        UnsupportedError: the base is quantized.
    """
    import torch

    model = masked.attach_masks(model, settings, lambda p: torch.ones_like(p, dtype=torch.bool))
    for module, name, p, _ in masked.masked(model):
        module.register_buffer(name + START, p.detach().clone(), persistent=False)
    return model


def before_step(model: Any, step: int) -> None:
    """Mask the gradients; at the end of the first phase choose, go back and forget the states."""
    if step == model.mask_settings["first_steps"] and not model.mask_chosen:
        masked.choose(model, _change)
        made = model.mask_optimizer()
        for module, name, p, _ in masked.masked(model):
            p.data.copy_(module.get_buffer(name + START))
            p.grad = None
            made.state.pop(p, None)
        _forget(model)
    masked.mask_gradients(model)


def _change(module: Any, name: str, p: Any) -> Any:
    return (p - module.get_buffer(name + START)).abs()


def _forget(model: Any) -> None:
    for module, name, _, _ in masked.masked(model):
        if name + START in module._buffers:
            delattr(module, name + START)


def merge(model: Any) -> Any:
    """The model without masks and copies."""
    _forget(model)
    return masked.merge(model)


LT_SFT = Method(
    name="lt-sft",
    title="LT-SFT: the weights that change most, trained again",
    family="selective",
    year=2022,
    citation="Ansell et al. 2022, arXiv 2110.07560",
    axes=Axes("yes", "no", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "fraction", 0.08, 0.01, 0.1, rule="as many as an adapter would have", source="paper"
        ),
        Hyperparameter("first_steps", 500, 100, 100000, rule="half of all steps, as a start"),
    ),
    attach=attach,
    trainable=masked.trainable,
    stored=masked.stored,
    merge=merge,
    optimizer=masked.optimizer,
    before_step=before_step,
)
