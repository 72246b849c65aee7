"""The operators that a calibration times, each over the shapes that models and adapters have.

FLOPs (1 MAC = 2 FLOPs) are those of matrix products. Attention counts the full square of tokens,
causal or not, and five products in backward, since the scores are computed again: both as torch's
own counter has it. Bytes are every operand read once and every result written once.

Letters: m tokens, k width of the input, n width of the output, v vocabulary; b batch, h heads,
s tokens of a sample, d width of a head; z bytes of an element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

Shape = tuple[int, ...]
Call = Callable[[], Any]
Prepare = Callable[[Shape, torch.dtype, str], Call]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NF4_BLOCK = 64
"""Weights that share a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One operator: its size by formula, and how a call of it is made ready.

    ``prepare(shape, dtype, device)`` fills the operands at random and gives the call. ``shrinks``
    is the dimension that is halved where time or memory is short. ``made`` are the bytes that
    ``prepare`` fills, where those are not about what is moved.
    """

    kind: str
    operator: str
    dtypes: tuple[str, ...]
    shapes: tuple[Shape, ...]
    prepare: Prepare
    moved: Callable[[Shape, int], int]
    flops: Callable[[Shape], int] = lambda _: 0
    made: Callable[[Shape, int], int] | None = None
    shrinks: int = 0


def _linear(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    m, k, n = shape
    x = torch.randn(m, k, dtype=dtype, device=device)
    weight = torch.randn(n, k, dtype=dtype, device=device)
    return lambda: F.linear(x, weight)


def _copy(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    x = torch.randn(shape, dtype=dtype, device=device)
    to = torch.empty_like(x)
    return lambda: to.copy_(x)


def _add(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    x, y = (torch.randn(shape, dtype=dtype, device=device) for _ in range(2))
    return lambda: x + y


def _of_one(operate: Callable[[torch.Tensor], Any]) -> Prepare:
    """Operators of one operand."""

    def prepare(shape: Shape, dtype: torch.dtype, device: str) -> Call:
        x = torch.randn(shape, dtype=dtype, device=device)
        return lambda: operate(x)

    return prepare


def _embedding(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    m, v, k = shape
    weight = torch.randn(v, k, dtype=dtype, device=device)
    tokens = torch.randint(v, (m,), device=device)
    return lambda: F.embedding(tokens, weight)


def _attention_forward(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    q, k, v = (torch.randn(shape, dtype=dtype, device=device) for _ in range(3))
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _attention_backward(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    q, k, v = (torch.randn(shape, dtype=dtype, device=device).requires_grad_() for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    gradient = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True)


def _dequantize_nf4(shape: Shape, dtype: torch.dtype, device: str) -> Call:
    from bitsandbytes import functional

    weight = torch.randn(shape, dtype=dtype, device=device)
    packed, state = functional.quantize_4bit(weight, blocksize=NF4_BLOCK, quant_type="nf4")
    return lambda: functional.dequantize_4bit(packed, state)


def _nf4_bytes(shape: Shape, z: int) -> int:
    """Half a byte and a share of an fp32 scale read for each weight that is written."""
    count = shape[0] * shape[1]
    return count // 2 + 4 * (count // NF4_BLOCK) + count * z


def _square(shape: Shape) -> int:
    """Multiply-accumulates of one product in attention: b·h·s²·d."""
    b, h, s, d = shape
    return b * h * s * s * d


def _numel(shape: Shape) -> int:
    return torch.Size(shape).numel()


SQUARES = tuple((n, n, n) for n in (512, 1024, 2048, 4096, 8192))
LAYERS = tuple(
    (m, k, n)
    for k, n in ((2048, 2048), (2048, 8192), (8192, 2048), (4096, 11008))
    for m in (512, 4096)
)
"""Projections of attention and feed-forward, at few and at many tokens."""
THIN = tuple(
    shape
    for m, r in ((4096, 8), (4096, 16), (4096, 64), (512, 16))
    for shape in ((m, 2048, r), (m, r, 2048))
)
"""Down to the rank of an adapter and back."""
ODD = ((2048, 4096, 32000), (2048, 4096, 16), (16, 2048, 2048), (777, 2048, 2048))
"""A head, the gradient of a thin factor, very few tokens, a length that fills no tile."""

LOW: tuple[str, ...] = ("bf16", "fp16")
ALL: tuple[str, ...] = (*LOW, "fp32")
ROWS = ((512, 2048), (4096, 4096))
HEADS = ((4, 16, 512, 64), (1, 32, 1024, 128), (1, 32, 4096, 128))

KERNELS = (
    Kernel(
        kind="matmul",
        operator="linear",
        dtypes=ALL,
        shapes=SQUARES + LAYERS + THIN + ODD,
        prepare=_linear,
        flops=lambda s: 2 * s[0] * s[1] * s[2],
        moved=lambda s, z: z * (s[0] * s[1] + s[1] * s[2] + s[0] * s[2]),
    ),
    Kernel(
        kind="copy",
        operator="copy_",
        dtypes=("fp32",),
        shapes=((2**18,), (2**22,), (2**24,), (2**26,)),
        prepare=_copy,
        moved=lambda s, z: 2 * z * s[0],
    ),
    Kernel(
        kind="elementwise",
        operator="add",
        dtypes=ALL,
        shapes=ROWS,
        prepare=_add,
        moved=lambda s, z: 3 * z * _numel(s),
    ),
    Kernel(
        kind="elementwise",
        operator="gelu",
        dtypes=ALL,
        shapes=ROWS,
        prepare=_of_one(F.gelu),
        moved=lambda s, z: 2 * z * _numel(s),
    ),
    Kernel(
        kind="elementwise",
        operator="to fp32",
        dtypes=LOW,
        shapes=ROWS,
        prepare=_of_one(torch.Tensor.float),
        moved=lambda s, z: (z + 4) * _numel(s),
    ),
    Kernel(
        kind="reduction",
        operator="sum",
        dtypes=ALL,
        shapes=ROWS,
        prepare=_of_one(lambda x: x.sum(-1)),
        moved=lambda s, z: z * (_numel(s) + s[0]),
    ),
    Kernel(
        kind="reduction",
        operator="layer_norm",
        dtypes=ALL,
        shapes=ROWS,
        prepare=_of_one(lambda x: F.layer_norm(x, x.shape[-1:])),
        moved=lambda s, z: 2 * z * _numel(s),
    ),
    Kernel(
        kind="reduction",
        operator="log_softmax",
        dtypes=ALL,
        shapes=((512, 512), (1024, 32000)),
        prepare=_of_one(lambda x: F.log_softmax(x, -1)),
        moved=lambda s, z: 2 * z * _numel(s),
    ),
    Kernel(
        kind="embedding",
        operator="embedding",
        dtypes=("bf16", "fp32"),
        shapes=((512, 32000, 512), (8192, 32000, 2048)),
        prepare=_embedding,
        # the rows that are looked up, read and written, and eight bytes for each token
        moved=lambda s, z: 2 * z * s[0] * s[2] + 8 * s[0],
        made=lambda s, z: z * s[1] * s[2],
    ),
    Kernel(
        kind="attention_forward",
        operator="scaled_dot_product_attention",
        dtypes=ALL,
        shapes=HEADS,
        prepare=_attention_forward,
        flops=lambda s: 4 * _square(s),
        moved=lambda s, z: 4 * z * _numel(s),
        shrinks=2,
    ),
    Kernel(
        kind="attention_backward",
        operator="scaled_dot_product_attention",
        dtypes=ALL,
        shapes=HEADS,
        prepare=_attention_backward,
        flops=lambda s: 10 * _square(s),
        # query, key, value, result and its gradient are read, three gradients written
        moved=lambda s, z: 8 * z * _numel(s),
        shrinks=2,
    ),
    Kernel(
        kind="dequantize_nf4",
        operator="dequantize_4bit",
        dtypes=("bf16", "fp16"),
        shapes=((2048, 2048), (4096, 11008)),
        prepare=_dequantize_nf4,
        moved=_nf4_bytes,
    ),
)
"""The table; matrix products have 25 shapes at each dtype."""
