"""Make composite operators on meta tensors take the path that they take on the target device.

torch decides a few things by asking "is this a CUDA tensor?" above the level that a dispatch mode
sees: the attention kernel, fused dropout, and softmax in fp32 of half inputs. While
``device_kernels`` is active those composites are replaced for meta tensors; nothing else is, and
no other device's tensors are touched. Public API only: ``torch.library.Library``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from peftadvisor.simulator.attention import WORKSPACES as ATTENTION_WORKSPACES
from peftadvisor.simulator.attention import AttentionCall, Device, attend

aten = torch.ops.aten


def _sort_buffers(grad: Any, indices: Any, *_: Any, **__: Any) -> list[int]:
    """The embedding gradient sorts the token ids: two int64 lists of them."""
    return [8 * indices.numel(), 8 * indices.numel()]


WORKSPACES: dict[Any, Any] = {
    **ATTENTION_WORKSPACES,
    aten.embedding_dense_backward.default: _sort_buffers,
}


def _dropout(device: Device) -> Any:
    def dropout(x: torch.Tensor, p: float, train: bool) -> torch.Tensor:
        if not train or p == 0:
            return x
        if device.capability is None:  # unfused: a mask of x's dtype, scaled, multiplied
            keep = torch.empty_like(x).bernoulli_(1 - p)
            return x * keep.div_(1 - p)
        return aten.native_dropout(x, p, train)[0]

    return dropout


def _attention(device: Device) -> Any:
    def scaled_dot_product_attention(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        if torch.is_autocast_enabled("cuda") and q.is_meta:
            low = torch.get_autocast_dtype("cuda")
            q, k, v = (x.to(low) for x in (q, k, v))
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(low)
        call = AttentionCall(q, k, v, attn_mask, dropout_p, is_causal, enable_gqa, device)
        return attend(call, scale)

    return scaled_dot_product_attention


def _softmax(operator: Any) -> Any:
    def softmax(x: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        if dtype is None and torch.is_autocast_enabled("cuda"):
            dtype = torch.float32
        if x.dtype is torch.float16 and dtype is torch.float32:  # converted inside the kernel
            return operator(x, dim, True)
        return operator(x if dtype is None else x.to(dtype), dim, False)

    return softmax


@contextmanager
def device_kernels(device: Device) -> Iterator[None]:
    """Let composites on meta tensors choose as they would on ``device``; undone at the end."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("scaled_dot_product_attention", _attention(device), "AutogradMeta")
    library.impl("dropout", _dropout(device), "AutogradMeta")
    if device.capability is not None:
        library.impl("softmax.int", _softmax(aten._softmax), "AutogradMeta")
        library.impl("log_softmax.int", _softmax(aten._log_softmax), "AutogradMeta")
    try:
        yield
    finally:
        library._destroy()
