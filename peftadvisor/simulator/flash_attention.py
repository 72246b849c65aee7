"""``attention="flash_attention_2"`` without the flash-attn package.

transformers lets anyone register an attention function and its mask. Ours calls torch's own
flash kernel, which is the same algorithm with the same buffers, and only on shapes. Padded
batches are taken as full: flash-attn would drop the padding tokens, as many as the data holds.
"""

from __future__ import annotations

from typing import Any

import torch

from peftadvisor.errors import UsageError
from peftadvisor.simulator.quantized_layers import QuantizedLinear

NAME = "peftadvisor_fa2"  # without "flash": transformers would look for the package
_MAX_HEAD_DIM = 256


def register() -> str:
    """Make the function known to transformers (again is harmless); returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    return NAME


def check(cls: Any, dtype: torch.dtype, amp: bool) -> None:
    """Refuse what flash-attn or the model refuses.

    Raises:
        UsageError: the model has no flash-attention path, or would run it in fp32.
    """
    allowed = getattr(cls, "_compatible_flash_implementations", None)
    replaceable = cls._can_set_attn_implementation()  # False: it calls the package by itself
    refused = allowed and "flash_attention_2" not in allowed
    if not cls._supports_flash_attn or refused or not replaceable:
        raise UsageError(
            f"{cls.__name__} has no flash_attention_2 path that can be simulated; use sdpa or eager"
        )
    if dtype is torch.float32 and not amp:
        raise UsageError("flash_attention_2 needs bf16 or fp16 (or amp); use sdpa for fp32")


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of [B,H,S,D] queries on [B,K,T,D] keys; the output is [B,S,H,D]."""
    if kwargs.get("position_bias") is not None or kwargs.get("s_aux") is not None:
        raise UsageError("flash_attention_2 knows no position bias or sinks; use sdpa or eager")
    d, d_value = query.size(-1), value.size(-1)
    if max(d, d_value) > _MAX_HEAD_DIM:
        raise UsageError(f"flash_attention_2 stops at head dimension 256, this model has {d}")
    if query.dtype is torch.float32:  # norms kept in fp32 leak into the query
        half = _half_dtype(module)
        query, key, value = (t.to(half) for t in (query, key, value))
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    padded = [torch.nn.functional.pad(t, (0, _missing(t, d))) for t in (query, key, value)]
    out = torch.ops.aten._scaled_dot_product_flash_attention(
        *padded, dropout, bool(causal), False, scale=scaling
    )[0]
    return out.transpose(1, 2)[..., :d_value], None


def _half_dtype(module: Any) -> torch.dtype:
    """What transformers casts fp32 queries to: of autocast, else of the config or a weight."""
    if torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    layers = [m for m in module.modules() if isinstance(m, torch.nn.Linear)]
    quantized = any(isinstance(layer, QuantizedLinear) for layer in layers)
    dtype: torch.dtype = module.config.dtype if quantized else layers[0].weight.dtype
    return dtype


def _missing(tensor: torch.Tensor, head_dim: int) -> int:
    """Columns to add: values get the keys' dimension, and all a multiple of 8."""
    return -(-head_dim // 8) * 8 - tensor.size(-1)
