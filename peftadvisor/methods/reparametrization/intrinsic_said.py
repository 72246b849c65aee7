"""Intrinsic SAID: one small vector is trained and projected to every weight.

Aghajanyan et al. 2020, arXiv 2012.13255. W + s·P·z, where z is shared by all weights, s by those
of a layer (one more for what lies outside the layers), and P is a random Fastfood transform
H·G·Π·H·B of seeded signs B, permutation Π and normal G, in blocks as long as z. The update is
made in fp32 where a module is called and added to its weights, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from zlib import crc32

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import heads, train_heads
from peftadvisor.methods.roles import language_part, layers

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

VECTOR, PROJECTION = "intrinsic", "intrinsic_"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and let every module add the projected vector to its weights when called.

    Raises:
        UnsupportedError: the vector leaves no room beside a scale per layer, or the base is
            quantized.
    """
    import torch

    if not all(p.is_floating_point() for p in model.parameters()):
        raise UnsupportedError(
            "intrinsic-said changes all weights and cannot take a quantized base"
        )
    stack = list(layers(model))
    if settings["dimension"] < len(stack) + 2:
        raise UnsupportedError(
            f"{type(model).__name__} has {len(stack)} layers with a scale each; "
            "take a larger dimension"
        )
    number = {id(m): n for n, layer in enumerate(stack) for m in layer.modules()}
    projections: dict[int, Any] = {}
    model.requires_grad_(False)
    with torch.device(next(model.parameters()).device):
        vector = _vector(settings["dimension"], len(stack) + 1)
        for path, module, names in list(_owners(model)):
            layer = number.get(id(module), len(stack))
            for name in names:
                p = module.get_parameter(name)
                if id(p) not in projections:
                    seed = settings["seed"] + crc32(f"{path}.{name}".encode())
                    projections[id(p)] = _projection(p, vector.side, layer, seed)
                module.add_module(PROJECTION + name, projections[id(p)])
            _hook(module, names, vector)
    model.add_module(VECTOR, vector)
    return train_heads(model)


def _owners(model: Any) -> Iterator[tuple[str, Any, list[str]]]:
    """Modules of the language model with parameters of their own, but for heads."""
    prefix, part = language_part(model)
    whole = {id(m) for head in heads(model) for m in head.modules()}
    for path, module in part.named_modules(prefix=prefix):
        names = [name for name, _ in module.named_parameters(recurse=False)]
        if names and id(module) not in whole:
            yield path, module, names


def _vector(dimension: int, scales: int) -> Any:
    import torch
    from torch import nn

    class Vector(nn.Module):
        """What is trained: the shared vector and the scales of the layers."""

        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.zeros(dimension - scales))
            self.scales = nn.Parameter(torch.ones(scales))
            bits = (dimension - scales - 1).bit_length()
            self.side = 1 << bits
            coarse, fine = _hadamard(bits // 2), _hadamard(bits - bits // 2)
            self.register_buffer("coarse", coarse, persistent=False)
            self.register_buffer("fine", fine, persistent=False)
            self.sides = len(coarse), len(fine)

        def transform(self, blocks: Any) -> Any:
            """Hadamard transform of each row (its entries in another, fixed order)."""
            coarse, fine = self.sides
            inner = (blocks.reshape(-1, fine) @ self.fine).view(-1, coarse, fine)
            outer = inner.transpose(1, 2).reshape(-1, coarse) @ self.coarse
            return outer.view(-1, self.side)

    return Vector()


def _hadamard(bits: int) -> Any:
    import torch

    matrix = torch.ones(1, 1)
    for _ in range(bits):
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


def _projection(weight: Any, side: int, layer: int, seed: int) -> Any:
    import torch
    from torch import nn
    from torch.nn import functional

    class Projection(nn.Module):
        """The signs, permutation and normal numbers of one weight: 9 bytes for each of its own."""

        def __init__(self) -> None:
            super().__init__()
            for name, tensor in _drawn(-(-weight.numel() // side), side, seed).items():
                self.register_buffer(name, tensor, persistent=False)

        def forward(self, vector: Any, like: Any) -> Any:
            values = functional.pad(vector.values, (0, side - len(vector.values)))
            mixed = vector.transform(values * self.get_buffer("signs")).flatten()
            mixed = mixed.index_select(0, self.order).view(-1, side).mul(self.normal)
            update = vector.transform(mixed).flatten()[: like.numel()]
            length = (side * like.numel()) ** -0.5
            return (update * (vector.scales[layer] * length)).view(like.shape).to(like.dtype)

    with torch.device(weight.device):
        return Projection()


def _drawn(blocks: int, side: int, seed: int) -> dict[str, Any]:
    """B, Π and G for all blocks, always the same for one seed; on the meta device shapes alone."""
    import torch

    shape = (blocks, side)
    if torch.empty(0).is_meta:
        signs, order = torch.empty(shape, dtype=torch.int8), torch.empty(blocks * side).int()
        return {"signs": signs, "order": order, "normal": torch.empty(shape)}
    device = torch.empty(0).device
    seeded = torch.Generator("cpu").manual_seed(seed)
    with torch.device("cpu"):
        signs = torch.randint(0, 2, shape, generator=seeded).mul_(2).sub_(1).to(torch.int8)
        rows = torch.rand(shape, generator=seeded).argsort(1)
        order = (rows + side * torch.arange(blocks)[:, None]).flatten().int()
        normal = torch.randn(shape, generator=seeded)
    return {"signs": signs.to(device), "order": order.to(device), "normal": normal.to(device)}


def _hook(module: Any, names: list[str], vector: Any) -> None:
    """While the module runs, changed weights hide its own."""

    def before(owner: Any, _: Any) -> None:
        for name in names:
            own = owner._parameters[name]
            owner.__dict__[name] = own + getattr(owner, PROJECTION + name)(vector, own)

    def after(owner: Any, *_: Any) -> None:
        for name in names:
            owner.__dict__.pop(name, None)

    module.intrinsic_hooks = [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, always_call=True),
    ]


def merge(model: Any) -> Any:
    """The model with the projected vector added to all weights, and all else taken away."""
    import torch

    vector = model.get_submodule(VECTOR)
    done: set[int] = set()
    for _, module, names in [o for o in _owners(model) if hasattr(o[1], "intrinsic_hooks")]:
        for name in names:
            own = module.get_parameter(name)
            with torch.no_grad():
                if id(own) not in done:
                    own += getattr(module, PROJECTION + name)(vector, own)
            done.add(id(own))
            delattr(module, PROJECTION + name)
        for hook in module.intrinsic_hooks:
            hook.remove()
        del module.intrinsic_hooks
    delattr(model, VECTOR)
    return model


def trainable(layout: Layout, settings: Settings) -> int:
    """The vector, of which the scales of layers are a part; a classification head whole."""
    return int(settings["dimension"]) + layout.head


INTRINSIC_SAID = Method(
    name="intrinsic-said",
    title="Intrinsic SAID: one vector projected to all weights",
    family="reparametrization",
    year=2020,
    citation="Aghajanyan et al. 2020, arXiv 2012.13255",
    axes=Axes("yes", "no", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "dimension", 1000, 200, 10000, rule="fewer for larger models", source="paper"
        ),
        Hyperparameter("seed", 0, rule="the same seed must be used to load"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
