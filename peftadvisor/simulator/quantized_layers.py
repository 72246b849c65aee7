"""Linear layers of quantized bases: their storages and kernels are those of bitsandbytes 0.50.

nf4 packs two elements in a byte and keeps an fp32 maximum per block of 64 (4.5 bits per
parameter) and a code of 16 fp32; with double quantization the maxima take a byte each, plus an
fp32 per 256 of them, an offset and a code of 256 (4.127 bits). int8 takes a byte per element and
an fp32 per row.

A 4-bit product unpacks the whole weight into the compute dtype, in forward and again in backward,
and saves neither that nor its input. From 0.50 on, bitsandbytes has a kernel that unpacks as it
goes for at most 1,536 rows (tokens of a batch), fewer or none on most cards and shapes:
``fused_rows`` sets up to how many rows a layer uses it; 0, the default, is right for the usual
batch. An LLM.int8 product casts its input to fp16, quantizes it row by row, adds up in int32,
rescales to fp16, and keeps its input until backward although it does not need it there. Columns
of outliers, which it would multiply in 16 bits, depend on the data and are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.flop_counter import register_flop_formula

from peftadvisor.errors import UnsupportedError

BLOCK = 64
OUTER_BLOCK = 256
GPTQ_GROUP = 128
CODE_4BIT = 16
CODE_8BIT = 256
OUTLIER = 6.0
"""Inputs at least this large are outliers to LLM.int8 (transformers' default)."""


def _shape_only(*_: Any) -> Any:
    raise UnsupportedError("a simulated quantized base cannot run on a device")


# -- Kernels: one each, as the tracer sees them --------------------------------------------------


@torch.library.custom_op("peftadvisor::dequantize", mutates_args=())
def dequantize(
    packed: torch.Tensor, maxima: torch.Tensor, rows: int, columns: int, dtype: torch.dtype
) -> torch.Tensor:
    """A 4-bit weight in a floating-point dtype; exists as a shape only."""
    return _shape_only()


@dequantize.register_fake
def _(
    packed: torch.Tensor, maxima: torch.Tensor, rows: int, columns: int, dtype: torch.dtype
) -> torch.Tensor:
    return packed.new_empty(rows, columns, dtype=dtype)


@torch.library.custom_op("peftadvisor::unpack_maxima", mutates_args=())
def unpack_maxima(quantized: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
    """The maxima of blocks in fp32, less their offset, from a byte each."""
    return _shape_only()


@unpack_maxima.register_fake
def _(quantized: torch.Tensor, outer: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(quantized, dtype=torch.float32)


@torch.library.custom_op("peftadvisor::fused_4bit", mutates_args=())
def fused_4bit(
    x: torch.Tensor,
    packed: torch.Tensor,
    maxima: torch.Tensor,
    rows: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """A product with a 4-bit weight that is unpacked inside the kernel."""
    return _shape_only()


@fused_4bit.register_fake
def _(
    x: torch.Tensor,
    packed: torch.Tensor,
    maxima: torch.Tensor,
    rows: int,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], rows)


@torch.library.custom_op("peftadvisor::quantize_rows", mutates_args=("out", "scale"))
def quantize_rows(x: torch.Tensor, out: torch.Tensor, scale: torch.Tensor) -> None:
    """An fp16 input in int8, with the largest element of each row."""
    _shape_only()


@quantize_rows.register_fake
def _(x: torch.Tensor, out: torch.Tensor, scale: torch.Tensor) -> None:
    return None


@torch.library.custom_op("peftadvisor::int8_product", mutates_args=())
def int8_product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Product of int8 operands, x Wᵀ, added up in int32."""
    return _shape_only()


@int8_product.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=torch.int32)


@torch.library.custom_op("peftadvisor::rescale", mutates_args=())
def rescale(
    product: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, shape: list[int]
) -> torch.Tensor:
    """An int32 product in fp16 and in the input's shape, by the scales of its rows and columns."""
    return _shape_only()


@rescale.register_fake
def _(
    product: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, shape: list[int]
) -> torch.Tensor:
    return product.new_empty(shape, dtype=torch.float16)


@register_flop_formula([torch.ops.peftadvisor.int8_product, torch.ops.peftadvisor.fused_4bit])
def _product_flops(x: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * int(torch.Size(out_shape).numel()) * int(x[-1])


# -- Layers --------------------------------------------------------------------------------------


class _Product4bit(torch.autograd.Function):
    """x Wᵀ + b with a weight that is unpacked for each product and never saved."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, layer: Linear4bit
    ) -> torch.Tensor:
        ctx.layer = layer
        if x.numel() // x.shape[-1] <= layer.fused_rows:
            return fused_4bit(x, layer.weight, layer.scale, layer.out_features, bias)
        restored = layer.restored_maxima()
        maxima = restored if layer.offset is None else restored + layer.offset
        weight = dequantize(layer.weight, maxima, layer.out_features, layer.in_features, x.dtype)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        grad_bias = grad.sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_bias, None
        weight = ctx.layer.dequantized(ctx.layer.stored_dtype).to(grad.dtype)
        return torch.matmul(grad, weight), grad_bias, None


class _ProductInt8(torch.autograd.Function):
    """x Wᵀ + b in int8; backward multiplies in the input's dtype."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, bias: torch.Tensor | None, layer: LinearInt8
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        quantized, row_scale = _rows_in_int8(flat.to(torch.float16))
        product = int8_product(quantized, layer.weight)
        shape = [*x.shape[:-1], layer.out_features]
        out = rescale(product, row_scale, layer.scale, shape)
        if bias is not None:
            out.add_(bias)
        out = out.to(x.dtype)
        ctx.layer, ctx.kept = layer, flat if ctx.needs_input_grad[0] else None
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        grad_bias = grad.sum(0) if ctx.needs_input_grad[1] else None
        flat = grad.reshape(-1, grad.shape[-1]).contiguous()
        if not ctx.needs_input_grad[0]:
            return None, grad_bias, None
        weight = ctx.layer.dequantized(ctx.dtype)
        return torch.matmul(flat.to(ctx.dtype), weight).view(ctx.shape), grad_bias, None


def _rows_in_int8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = x.new_empty(x.shape[0], dtype=torch.float32)
    out = torch.empty_like(x, dtype=torch.int8)
    outliers = x.abs() >= OUTLIER  # looked for, and none found
    quantize_rows(x, out, scale)
    del outliers
    return out, scale


class QuantizedLinear(nn.Linear):
    """A linear layer with a quantized weight; ``weight`` holds the packed bytes.

    Made from a Linear or a transformers Conv1D, whose bias it takes over. ``scale`` holds the
    maxima of blocks or rows.
    """

    scale: torch.Tensor

    def __init__(self, source: Any, stored: torch.Tensor, shape: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = shape
        self.bias = source.bias
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.weight.logical_numel = shape[0] * shape[1]  # type: ignore[attr-defined]

    @property
    def W_q(self) -> torch.Tensor:
        """The packed weight; layers that have it are asked for ``dequantize()`` by PEFT's DoRA."""
        return self.weight


class Linear4bit(QuantizedLinear):
    """nf4, with or without double quantization of the maxima of its blocks."""

    offset: torch.Tensor | None

    def __init__(
        self, source: Any, dtype: torch.dtype, double: bool = False, fused_rows: int = 0
    ) -> None:
        rows, columns = _shape(source)
        device = source.weight.device
        packed = torch.empty((rows * columns + 1) // 2, 1, dtype=torch.uint8, device=device)
        super().__init__(source, packed, (rows, columns))
        self.compute_dtype = self.stored_dtype = dtype
        self.fused_rows = fused_rows
        blocks = -(-rows * columns // BLOCK)
        maxima = torch.uint8 if double else torch.float32
        self._hold("scale", blocks, maxima)
        self._hold("code", CODE_4BIT)
        self.register_buffer("offset", torch.empty((), device=device) if double else None)
        if double:
            self._hold("outer_scale", -(-blocks // OUTER_BLOCK))
            self._hold("outer_code", CODE_8BIT)

    def _hold(self, name: str, elements: int, dtype: torch.dtype = torch.float32) -> None:
        stored = torch.empty(elements, dtype=dtype, device=self.weight.device)
        self.register_buffer(name, stored, persistent=False)

    def restored_maxima(self) -> torch.Tensor:
        """Maxima of the blocks in fp32; with double quantization new, and less their offset."""
        if self.offset is None:
            return self.scale
        return unpack_maxima(self.scale, self.outer_scale)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight in a dtype, as a new tensor."""
        maxima = self.restored_maxima()
        if self.offset is not None:
            maxima += self.offset
        return dequantize(self.weight, maxima, self.out_features, self.in_features, dtype)

    def dequantize(self) -> torch.Tensor:
        """The weight in the dtype that it was loaded in."""
        return self.dequantized(self.stored_dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute in the compute dtype and return the input's dtype."""
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        out = _Product4bit.apply(x.to(self.compute_dtype), bias, self)
        return out.to(x.dtype)


class LinearGptq(Linear4bit):
    """GPTQ with 4 bits (Frantar et al. 2022, arXiv 2210.17323), as its training kernels have it.

    fp16 scales and 4-bit zeros per 128 inputs, and an int32 per input that names its group: 4.16
    bits. The whole weight is unpacked for a product, forward and backward.
    """

    def __init__(self, source: Any, dtype: torch.dtype) -> None:
        rows, columns = _shape(source)
        device = source.weight.device
        packed = torch.empty((rows * columns + 1) // 2, 1, dtype=torch.uint8, device=device)
        QuantizedLinear.__init__(self, source, packed, (rows, columns))
        self.compute_dtype = self.stored_dtype = dtype
        self.fused_rows, self.offset = 0, None
        groups = -(-columns // GPTQ_GROUP)
        self._hold("scale", groups * rows, torch.float16)
        self._hold("zeros", -(-groups * rows // 2), torch.uint8)
        self._hold("group_index", columns, torch.int32)


class LinearInt8(QuantizedLinear):
    """LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339)."""

    def __init__(self, source: Any) -> None:
        rows, columns = _shape(source)
        device = source.weight.device
        packed = torch.empty(rows, columns, dtype=torch.int8, device=device)
        super().__init__(source, packed, (rows, columns))
        self.register_buffer("scale", torch.empty(rows, device=device), persistent=False)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight in a dtype, as a new tensor."""
        rows = self.scale.unsqueeze(1).mul(1 / 127)
        return self.weight.to(dtype, copy=True).mul_(rows)

    def dequantize(self) -> torch.Tensor:
        """The weight in fp32."""
        return (self.weight * self.scale.view(-1, 1)) * (1 / 127)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute in int8 and return the input's dtype."""
        return _ProductInt8.apply(x, self.bias, self)


def _shape(source: Any) -> tuple[int, int]:
    """Rows (outputs) and columns; a Conv1D holds its weight the other way round."""
    rows, columns = source.weight.shape
    return (rows, columns) if isinstance(source, nn.Linear) else (columns, rows)
