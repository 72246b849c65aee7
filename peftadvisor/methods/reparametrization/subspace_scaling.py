"""SSL and SSB: trained scales of one or both singular subspaces (Si et al. 2024, arXiv 2407.05417).

With W = U·S·Vᵀ (outputs x inputs) SSL trains W·diag(s) and SSB diag(t)·W·diag(s), which scale
the subspaces of inputs and outputs, and need no decomposition. As in the authors' code SSL scales
inputs (the left side for them, who write W as inputs x outputs). All scales start at one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, train_heads
from peftadvisor.methods.reparametrization.beside import chosen_layers

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

NAME = "subspace_scales"


def attach_one(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and train a scale per input of the chosen layers.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    return _attach(model, settings, both=False)


def attach_both(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and train a scale per input and per output of the chosen layers.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    return _attach(model, settings, both=True)


def _attach(model: Any, settings: Mapping[str, Any], both: bool) -> Any:
    import torch
    from torch import nn

    chosen = list(chosen_layers(model, settings["target_modules"]))
    if not chosen:
        raise UnsupportedError(
            f"{type(model).__name__} has no query and value projections; "
            "name layers by --target-modules"
        )
    model.requires_grad_(False)
    for linear, module in chosen:
        made = {"inputs": linear.inputs, **({"outputs": linear.outputs} if both else {})}
        ones = {n: torch.ones(size, device=module.weight.device) for n, size in made.items()}
        module.add_module(NAME, nn.ParameterDict(ones))
        module.scale_hooks = [module.register_forward_pre_hook(_scale_inputs)]
        if both:
            module.scale_hooks.append(module.register_forward_hook(_scale_outputs))
    return train_heads(model)


def _scale_inputs(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    scale = getattr(module, NAME)["inputs"]
    return (inputs[0] * scale.to(inputs[0].dtype), *inputs[1:])


def _scale_outputs(module: Any, _: tuple[Any, ...], output: Any) -> Any:
    scale = getattr(module, NAME)["outputs"].to(output.dtype)
    return output * scale if module.bias is None else (output - module.bias) * scale + module.bias


def merge(model: Any) -> Any:
    """The model with the scales multiplied into the weights and taken away."""
    import torch

    for module in [m for m in model.modules() if hasattr(m, NAME)]:
        scales = getattr(module, NAME)
        matrix = module.weight if isinstance(module, torch.nn.Linear) else module.weight.T
        with torch.no_grad():
            matrix *= scales["inputs"]
            if "outputs" in scales:
                matrix *= scales["outputs"][:, None]
        for hook in module.scale_hooks:
            hook.remove()
        del module.scale_hooks
        delattr(module, NAME)
    return model


def trainable_one(layout: Layout, settings: Settings) -> int:
    """A scale per input of each chosen layer; a classification head whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.inputs for x in chosen)


def trainable_both(layout: Layout, settings: Settings) -> int:
    """A scale per input and per output of each chosen layer; a classification head whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.inputs + x.outputs for x in chosen)


_TARGETS = Hyperparameter("target_modules", None, rule="query and value by default, as for lora")

SSL = Method(
    name="ssl",
    title="SSL: scales of one singular subspace",
    family="reparametrization",
    year=2024,
    citation="Si et al. 2024, arXiv 2407.05417",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(_TARGETS,),
    attach=attach_one,
    trainable=trainable_one,
    merge=merge,
    quantized_base=True,
    several=True,
)

SSB = Method(
    name="ssb",
    title="SSB: scales of both singular subspaces",
    family="reparametrization",
    year=2024,
    citation="Si et al. 2024, arXiv 2407.05417",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(_TARGETS,),
    attach=attach_both,
    trainable=trainable_both,
    merge=merge,
    quantized_base=True,
    several=True,
)
