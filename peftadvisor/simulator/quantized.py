"""Quantized bases: linear layers whose storages and kernels are those of bitsandbytes.

A weight of n elements takes n/2 bytes packed plus one fp32 maximum per block of 64 (nf4: 4.5 bits
per parameter); with double quantization the maxima are one byte each plus one fp32 per 256 of
them (4.127 bits). int8 takes n bytes plus one fp32 per row. The product dequantizes the whole
weight into the compute dtype, in forward and again in backward (bitsandbytes before 0.50; later
releases fuse the forward product of at most 1,536 tokens on some cards, which is left out here).
Outliers of LLM.int8 are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftadvisor.errors import UnsupportedError
from peftadvisor.specs import Quantization

BLOCK = 64
OUTER_BLOCK = 256


@torch.library.custom_op("peftadvisor::dequantize", mutates_args=())
def dequantize(
    packed: torch.Tensor, scale: torch.Tensor, rows: int, columns: int, dtype: torch.dtype
) -> torch.Tensor:
    """The weight in the compute dtype; exists as a shape only."""
    raise UnsupportedError("a simulated quantized base cannot run on a device")


@dequantize.register_fake
def _(
    packed: torch.Tensor, scale: torch.Tensor, rows: int, columns: int, dtype: torch.dtype
) -> torch.Tensor:
    return packed.new_empty(rows, columns, dtype=dtype)


class _Product(torch.autograd.Function):
    """x @ Wᵀ with a weight that is dequantized for each product and never saved."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantizedLinear) -> torch.Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.dequantized(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return torch.matmul(grad, ctx.layer.dequantized(grad.dtype)), None


class QuantizedLinear(nn.Linear):
    """A linear layer with a quantized weight; ``weight`` holds the packed bytes."""

    def __init__(self, source: nn.Linear, quantization: Quantization, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = source.in_features, source.out_features
        self.compute_dtype = dtype
        self.bias = source.bias
        elements = self.in_features * self.out_features
        self._hold_weight(elements, quantization, source.weight.device)
        self.weight.logical_numel = elements  # type: ignore[attr-defined]

    def _hold_weight(self, elements: int, quantization: Quantization, device: Any) -> None:
        int8 = quantization == "int8"
        shape = (self.out_features, self.in_features) if int8 else (elements // 2, 1)
        kind = torch.int8 if int8 else torch.uint8
        packed = torch.empty(shape, dtype=kind, device=device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        blocks = self.out_features if int8 else -(-elements // BLOCK)
        double = quantization == "nf4-dq"
        scale = torch.float32 if not double else torch.uint8
        self.register_buffer("scale", torch.empty(blocks, dtype=scale, device=device))
        if double:
            outer = torch.empty(-(-blocks // OUTER_BLOCK), device=device)
            self.register_buffer("outer_scale", outer)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight in a dtype, as a new tensor."""
        return dequantize(self.weight, self.scale, self.out_features, self.in_features, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute in the compute dtype and return the input's dtype, as bitsandbytes does."""
        out = _Product.apply(x.to(self.compute_dtype), self)
        if self.bias is not None:
            out = out + self.bias.to(self.compute_dtype)
        return out.to(x.dtype)


def quantize_base(model: Any, quantization: Quantization, dtype: torch.dtype) -> None:
    """Replace linear layers as transformers does for bitsandbytes, and prepare for training.

    Left as they are: the output head, tied weights, and modules that the model keeps in fp32.
    Then, as PEFT prepares a quantized base: everything is frozen, and what is still in 16 bits
    (norms, embeddings, head) becomes fp32. ``model.lora_layers`` tells LoRA how to wrap.
    """
    kept = _kept_names(model)
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear and not any(name in path for name in kept):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, QuantizedLinear(module, quantization, dtype))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()
    model.lora_layers = {QuantizedLinear: _lora_layer(clone=quantization != "int8")}


def _kept_names(model: Any) -> set[str]:
    from transformers.quantizers.base import get_keys_to_not_convert

    return {*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())}


def _lora_layer(clone: bool) -> Any:
    """PEFT's LoRA layer with the order of operations that PEFT has for bitsandbytes layers.

    A 4-bit result is copied first; the update is brought to the result's dtype before it is added.
    """
    from peft.tuners.lora.layer import Linear

    class QuantizedLora(Linear):
        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = self.base_layer(x, *args, **kwargs)
            result = result.clone() if clone else result
            for name in self.active_adapters:
                down, up = self.lora_A[name], self.lora_B[name]
                x = self._cast_input_dtype(x, down.weight.dtype)
                update = up(down(self.lora_dropout[name](x))) * self.scaling[name]
                result = result + update.to(result.dtype)
            return result

    return QuantizedLora
