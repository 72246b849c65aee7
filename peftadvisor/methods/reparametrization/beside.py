"""Low-rank changes of our own beside linear layers, where PEFT has none.

A change is a module that maps a layer's input to what is added to its output, has ``matrix()``
(that map as outputs x inputs), and fp32 parameters as PEFT's adapters have. It sits in a forward
hook on the layer, so the base keeps its modules and may be quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.peft_backed import QUERY_VALUE, train_heads
from peftadvisor.methods.sites import Linear, layout_of, sites

NAME = "beside"


def attach_beside(
    model: Any, settings: Mapping[str, Any], make: Callable[[Linear, Mapping[str, Any]], Any]
) -> Any:
    """Freeze the model and put a change beside the layers that ``target_modules`` names.

    Raises:
        UnsupportedError: the model has no such layers.
    """
    import torch

    chosen = list(chosen_layers(model, settings["target_modules"]))
    if not chosen:
        raise UnsupportedError(
            f"{type(model).__name__} has no query and value projections; "
            "name layers by --target-modules"
        )
    model.requires_grad_(False)
    for linear, module in chosen:
        with torch.device(module.weight.device):
            change = make(linear, settings)
        module.add_module(NAME, change.train(module.training))
        change.hook = module.register_forward_hook(added_beside)
    return train_heads(model)


def chosen_layers(model: Any, named: Any) -> Iterator[tuple[Linear, Any]]:
    """Sizes and modules of the layers that ``target_modules`` names; None: query and value."""
    layout, inside = layout_of(model), [site.module for site in sites(model)]
    outside = [x for x in layout.linears if x.layer < 0]
    modules = [*inside, *(model.get_submodule(linear.path) for linear in outside)]
    wanted = {id(linear) for linear in layout.targets(named, QUERY_VALUE)}
    for linear, module in zip(layout.linears, modules, strict=True):
        if id(linear) in wanted:
            yield linear, module


def added_beside(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """A forward hook: the output and what the change beside makes of the input."""
    return output + module.beside(inputs[0]).to(output.dtype)


def merge_beside(model: Any) -> Any:
    """The model with every change added to its layer's weight and taken away."""
    import torch

    for module in [m for m in model.modules() if hasattr(m, NAME)]:
        change = module.beside
        with torch.no_grad():
            matrix = change.matrix().to(module.weight.dtype)
            module.weight += matrix if isinstance(module, torch.nn.Linear) else matrix.T
        change.hook.remove()
        del module.beside
    return model
