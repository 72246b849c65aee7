"""Which attention kernel ``scaled_dot_product_attention`` picks, and what it allocates.

The choice follows the order and the conditions of torch 2.13 (``sdp_utils.cpp``): cuDNN first on
compute capability 9.0, 10.0 and 10.3, then flash, memory-efficient, math. Sizes of the buffers
inside the backward kernels follow ``mha_bwd`` and ``_efficient_attention_backward`` of the same
release. Shapes: q [B,H,S,D], k and v [B,K,T,D].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Device:
    """Where the simulated run takes place: ``capability`` is None on a CPU."""

    capability: tuple[int, int] | None

    @property
    def prefers_cudnn(self) -> bool:
        """Whether torch asks cuDNN before its own flash kernel on this device."""
        return self.capability in ((9, 0), (10, 0), (10, 3))


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What the choice of a kernel depends on."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    is_causal: bool
    enable_gqa: bool
    device: Device

    @property
    def same_heads(self) -> bool:
        """Whether queries and keys have the same number of heads."""
        return self.query.size(-3) == self.key.size(-3) == self.value.size(-3)

    @property
    def needs_grad(self) -> bool:
        """Whether a backward pass will run through this call."""
        tensors = (self.query, self.key, self.value)
        return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _can_use_flash(call: AttentionCall) -> bool:
    capability = call.device.capability
    head_dim = call.query.size(-1)
    awkward = (8, 6) <= (capability or (0, 0)) <= (8, 9) or (capability or (0, 0)) >= (12, 0)
    blocked = (
        call.needs_grad
        and awkward
        and (192 < head_dim <= 224 or (head_dim > 224 and call.dropout > 0))
    )
    return (
        capability is not None
        and capability >= (8, 0)
        and call.mask is None
        and call.query.dtype in _HALF
        and head_dim == call.key.size(-1) == call.value.size(-1) <= 256
        and not blocked
        and not (call.is_causal and call.query.size(-2) != call.key.size(-2))
        and (call.same_heads or call.enable_gqa)
    )


def _can_use_cudnn(call: AttentionCall) -> bool:
    limit = 256 if call.device.capability == (9, 0) else 128
    dims = (call.query.size(-1), call.value.size(-1))
    return (
        call.device.prefers_cudnn
        and call.query.dtype in _HALF
        and max(dims) <= limit
        and all(d % 8 == 0 for d in dims)
        and not (call.mask is not None and call.mask.requires_grad)
        and (call.same_heads or call.enable_gqa)
    )


def _can_use_efficient(call: AttentionCall) -> bool:
    capability = call.device.capability
    half = call.query.dtype in _HALF
    if capability is None or (call.query.dtype is torch.bfloat16 and capability < (8, 0)):
        return False
    alignment = 8 if half and capability >= (7, 0) else 4 if capability >= (8, 0) else 1
    aligned = all(t.size(-1) % alignment == 0 for t in (call.query, call.key, call.value))
    return aligned and call.same_heads


def _can_use_cpu_flash(call: AttentionCall) -> bool:
    bias_grad = call.mask is not None and call.mask.requires_grad
    return (
        call.device.capability is None
        and call.dropout == 0
        and not bias_grad
        and call.query.size(-1) == call.value.size(-1)
    )


def attend(call: AttentionCall, scale: float | None) -> torch.Tensor:
    """Run the kernel that torch would pick for this call, on shapes."""
    q, k, v = call.query, call.key, call.value
    mask = _additive(call.mask, q.dtype)
    if _can_use_cudnn(call):
        out = aten._scaled_dot_product_cudnn_attention(
            q, k, v, mask, call.needs_grad, call.dropout, call.is_causal, False, scale=scale
        )
        return out[0]
    if _can_use_flash(call):
        d = q.size(-1)
        q, k, v = (_pad_last(t, 8) for t in (q, k, v))
        out = aten._scaled_dot_product_flash_attention(
            q, k, v, call.dropout, call.is_causal, False, scale=scale
        )
        return out[0][..., :d]
    if _can_use_cpu_flash(call):
        return aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, call.dropout, call.is_causal, attn_mask=mask, scale=scale
        )[0]
    if _can_use_efficient(call):
        mask = None if mask is None else _aligned_mask(mask, q, k)
        return aten._scaled_dot_product_efficient_attention(
            q, k, v, mask, call.needs_grad, call.dropout, call.is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        q, k, v, mask, call.dropout, call.is_causal, None, scale=scale, enable_gqa=call.enable_gqa
    )[0]


def _additive(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if mask is None or mask.dtype is not torch.bool:
        return mask
    lowest = aten.scalar_tensor(-float("inf"), dtype=dtype, device=mask.device)
    return torch.where(mask, aten.scalar_tensor(0.0, dtype=dtype, device=mask.device), lowest)


def _pad_last(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    missing = -tensor.size(-1) % multiple
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def _aligned_mask(mask: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The efficient kernel wants a mask whose rows start at multiples of 16 elements."""
    length = mask.size(-1)
    if mask.dim() != 4:
        mask = mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))
    if length % 16:
        mask = _pad_last(mask, 16)[..., :length]
    return mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _flash_backward_buffers(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Sequence[int]:
    """softmax_d and dq_accum in fp32, and dk, dv per query head where heads share keys."""
    b, h, s, d = q.shape
    rows, cols = _round_up(s, 128), _round_up(d, 32 if d <= 128 else 64)
    shared = k.size(1) != h
    expanded = b * h * k.size(2) * d * q.element_size() if shared else 0
    return (4 * b * h * rows, 4 * b * h * rows * cols, expanded, expanded)


def _efficient_backward_buffers(
    grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any
) -> Sequence[int]:
    """Delta [B,H,S] in fp32, and for half precision an fp32 accumulator of dq."""
    b, h, s, d = q.shape
    accumulator = 4 * b * h * _round_up(s, 64) * _round_up(d, 32) if q.dtype in _HALF else 0
    return (4 * b * h * _round_up(s, 32), accumulator)


WORKSPACES = {
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward_buffers,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward_buffers,
}
