"""FAR: a fraction of the feed-forward nodes is trained, apart from the frozen ones.

Vucetic et al. 2022, arXiv 2205.01541. A node is a row of the up (and gate) projection and a
column of the down projection; both are split so that what belongs to frozen nodes needs no
gradients. The authors train the nodes that move most in a short run on the data; nodes have no
order, so without data the last ones are as good as any, and those are taken here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.sites import Linear, sites

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

NAME = "nodes"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Split the feed-forward projections, train one part of them and a classification head.

    Raises:
        UnsupportedError: the model has no pair of up and down projections, or quantized ones.
    """
    inside = list(sites(model))
    found = [(inside[i], ends) for i, ends in _projections([site.linear for site in inside])]
    if not found:
        raise UnsupportedError(
            f"{type(model).__name__} has no feed-forward layers with separate up and down "
            "linear maps; use attention-tuning instead"
        )
    if not all(site.module.weight.is_floating_point() for site, _ in found):
        raise UnsupportedError("a quantized weight cannot be split; use qlora instead")
    model.requires_grad_(False)
    for site, ends in found:
        _split(site.module, ends, _count(site.linear, ends, settings))
    return train_heads(model)


def _projections(linears: Sequence[Linear]) -> Iterator[tuple[int, bool]]:
    """Index of each feed-forward projection, and whether it ends in nodes (up, gate) or not (down).

    With a down projection go those before it in the layer that are as wide as it takes in.
    """
    waiting: list[int] = []
    for index, linear in enumerate(linears):
        if linear.role in ("up", "gate"):
            waiting.append(index)
        elif linear.role == "down":
            before = [linears[i] for i in waiting]
            if any(x.layer == linear.layer and x.outputs == linear.inputs for x in before):
                yield from ((i, True) for i in waiting if linears[i].outputs == linear.inputs)
                yield index, False
            waiting = []


def _count(linear: Linear, ends: bool, settings: Settings) -> int:
    nodes = linear.outputs if ends else linear.inputs
    return max(1, int(settings["fraction"] * nodes))


def _split(module: Any, ends: bool, count: int) -> None:
    """Leave the frozen nodes in the module and give it the others as a trained layer of its own."""
    import torch
    from torch import nn

    matrix = _matrix(module)
    rows, columns = matrix.shape
    cut = (rows if ends else columns) - count
    frozen, trained = matrix.tensor_split([cut], 0 if ends else 1)
    bias = module.bias.data if ends and module.bias is not None else None
    nodes = nn.Linear(trained.shape[1], trained.shape[0], bias is not None, device="meta")
    nodes.weight = nn.Parameter(trained.clone(memory_format=torch.contiguous_format))
    if bias is not None:
        nodes.bias = nn.Parameter(bias[cut:].clone())
        module.bias.data = bias[:cut].clone()
    _put(module, frozen)
    module.add_module(NAME, nodes)
    if ends:
        module.node_hooks = [module.register_forward_hook(_append)]
    else:
        module.node_hooks = [
            module.register_forward_pre_hook(_part),
            module.register_forward_hook(_add),
        ]


def _matrix(module: Any) -> Any:
    """The weight as outputs x inputs."""
    from torch import nn

    return module.weight.data if isinstance(module, nn.Linear) else module.weight.data.T


def _put(module: Any, matrix: Any) -> None:
    """Give the module a weight of another size, and tell it its widths."""
    import torch
    from torch import nn

    plain, size = torch.contiguous_format, matrix.shape
    if isinstance(module, nn.Linear):
        module.weight.data = matrix.clone(memory_format=plain)
        module.out_features, module.in_features = size
    else:
        module.weight.data = matrix.T.clone(memory_format=plain)
        module.nf, module.nx = size


def _append(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    import torch

    return torch.cat([output, module.nodes(inputs[0])], -1)


def _part(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Keep the trained nodes for ``_add``, a copy so that backward needs no others.

    Frozen ones go on as a matrix, for which no bias is added in a step of its own.
    """
    count = module.nodes.in_features
    frozen, trained = inputs[0].split([inputs[0].shape[-1] - count, count], -1)
    module.trained_nodes = trained.contiguous()
    return frozen.flatten(0, -2)


def _add(module: Any, _: tuple[Any, ...], output: Any) -> Any:
    added = module.nodes(module.__dict__.pop("trained_nodes"))
    return output.view_as(added) + added


def merge(model: Any) -> Any:
    """The model with its feed-forward layers in one piece again."""
    import torch

    for module in [m for m in model.modules() if hasattr(m, "node_hooks")]:
        ends = len(module.node_hooks) == 1
        _put(module, torch.cat([_matrix(module), module.nodes.weight.data], 0 if ends else 1))
        if ends and module.bias is not None:
            module.bias.data = torch.cat([module.bias.data, module.nodes.bias.data])
        for hook in module.node_hooks:
            hook.remove()
        del module.node_hooks
        delattr(module, NAME)
    return model


def trainable(layout: Layout, settings: Settings) -> int:
    """Of n nodes f·n: rows with their biases, columns; a classification head whole."""
    total = layout.head
    inside = [x for x in layout.linears if x.layer >= 0]
    for index, ends in _projections(inside):
        x = inside[index]
        total += _count(x, ends, settings) * (x.inputs + x.bias if ends else x.outputs)
    return total


FAR = Method(
    name="far",
    title="FAR: a fraction of the feed-forward nodes",
    family="selective",
    year=2022,
    citation="Vucetic et al. 2022, arXiv 2205.01541",
    axes=Axes("maybe", "yes", "no", "none", "derived"),
    hyperparameters=(Hyperparameter("fraction", 0.1, 0.1, 0.4, rule="more for harder tasks"),),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
