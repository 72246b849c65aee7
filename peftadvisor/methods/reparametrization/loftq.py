"""LoftQ: LoRA on a 4-bit base whose factors start as the error of rounding (arXiv 2310.08659).

Li et al. 2023. For each weight W: Q = nf4(W - s·BA), then BA from the singular vectors of W - Q,
in turns; s is LoRA's scale. PEFT's own start needs bitsandbytes and a GPU; this one keeps Q in
the dtype of the model, every value one that nf4 can hold. It is made again when the method is
attached, so a saved adapter needs the same base weights and settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Hyperparameter, Method
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora

BLOCK = 64
LARGEST = 0.9677083
"""The probability whose normal quantile is the largest code, as in bitsandbytes."""


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA, then round each adapted weight and start its factors.

    On the meta device there are no values to round.

    Raises:
        UnsupportedError: the base is quantized already.
    """
    from peft.tuners.lora.layer import Linear

    if getattr(model, "is_quantized", False):
        raise UnsupportedError("LoftQ rounds the base itself; load it in 16 bits, or use qlora")
    wrapped = lora.attach(model, settings)
    if not next(model.parameters()).is_meta:
        for module in wrapped.modules():
            if isinstance(module, Linear):
                _start(module, settings["iterations"])
    return wrapped


def _start(module: Any, iterations: int) -> None:
    """Set base weight, A and B of one layer of PEFT's LoRA."""
    import torch

    base, name = module.get_base_layer(), module.active_adapter[0]
    rank, scale = module.r[name], module.scaling[name]
    held = base.weight.data
    weight = (held.T if module.fan_in_fan_out else held).float()
    product = torch.zeros_like(weight)
    for _ in range(iterations):
        rounded = nf4(weight - product)
        u, s, vh = torch.linalg.svd(weight - rounded, full_matrices=False)
        root = s[:rank].sqrt()
        up, down = u[:, :rank] * root, root[:, None] * vh[:rank]
        product = up @ down
    base.weight.data = (rounded.T if module.fan_in_fan_out else rounded).to(held.dtype)
    module.lora_A[name].weight.data.copy_(down / scale**0.5)
    module.lora_B[name].weight.data.copy_(up / scale**0.5)


def nf4(weight: Any) -> Any:
    """The nearest values that nf4 holds, with one maximum per block of 64."""
    import torch
    from torch.nn.functional import pad

    upper, lower = (torch.special.ndtri(torch.linspace(LARGEST, 0.5, n)[:-1]) for n in (9, 8))
    codes = torch.cat([-lower, torch.zeros(1), upper.flip(0)]) / upper.max()
    codes = codes.to(weight.device)
    blocks = pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
    maxima = blocks.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    nearest = torch.bucketize(blocks / maxima, (codes[1:] + codes[:-1]) / 2)
    return (codes[nearest] * maxima).flatten()[: weight.numel()].view_as(weight)


LOFTQ = Method(
    name="loftq",
    title="LoftQ: nf4 base, LoRA on all linear layers started from its error",
    family="reparametrization",
    year=2023,
    citation="Li et al. 2023, arXiv 2310.08659",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=(
        *lora.ALL_LINEAR,
        Hyperparameter("iterations", 1, 1, 5, rule="1; more for 2 bits", source="PEFT; paper: 5"),
    ),
    attach=attach,
    trainable=lora.trainable,
    merge=merge,
    quantization="nf4",
    quantized_base=True,
    several=True,
)
