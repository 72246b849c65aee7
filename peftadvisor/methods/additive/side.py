"""What methods beside a frozen backbone share: they read its layers, and replace what it puts out.

The backbone runs without a graph, since nothing in it is trained: of its activations only the
outputs of layers are kept, which the side network reads. What the side network makes of them
takes the place of the last layer's output; the final norm and the head follow as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import hidden_size, stacks, width_of

NAME = "side"


def attach_side(model: Any, make: Callable[[int, int], Any], name: str) -> Any:
    """Freeze the model and let ``make(d, L)`` read the last stack's L layers of width d.

    What is made maps the states [b, s, d] after the embedding and after each layer to one.

    Raises:
        UnsupportedError: the model has no plain stack of layers.
    """
    stack = list(plain_stacks(model, name)[-1])
    model.requires_grad_(False)
    side = on_device(model, lambda: make(hidden_size(model), len(stack)))
    model.add_module(NAME, side)
    read(stack, lambda states: side(states))
    return train_heads(model)


def plain_stacks(model: Any, name: str) -> list[Any]:
    """The stacks of a model in which every layer runs once and all are as wide.

    Raises:
        UnsupportedError: there are none.
    """
    found, width = list(stacks(model)), hidden_size(model)
    count = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    same = all(width_of(layer, width) == width for stack in found for layer in stack)
    if not found or not same or len(found[-1]) < count:
        raise UnsupportedError(
            f"{name} reads layers of one width that run once; {type(model).__name__} has no such "
            "stack; use lora or houlsby instead"
        )
    return found


def on_device(model: Any, make: Callable[[], Any]) -> Any:
    """A module made on the model's device, in the dtype of its weights, fp32 if quantized."""
    import torch

    weight = next(p for p in model.parameters() if p.is_floating_point())
    with torch.device(weight.device):
        return make().to(weight.dtype).train(model.training)


def read(stack: list[Any], use: Callable[[list[Any]], Any]) -> None:
    """Call ``use`` with all states at the end of the stack; what it returns replaces the last."""
    states: list[Any] = []

    def start(_module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        states[:] = [inputs[0] if inputs else named["hidden_states"]]

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    def finish(_module: Any, _inputs: Any, output: Any) -> Any:
        made = use(states)
        states.clear()
        return (made, *output[1:]) if isinstance(output, tuple) else made

    stack[0].register_forward_pre_hook(start, with_kwargs=True)
    for layer in stack:
        layer.register_forward_hook(keep)
    stack[-1].register_forward_hook(finish)
