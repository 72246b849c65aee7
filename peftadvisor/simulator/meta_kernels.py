"""Shapes of the few operators that models call and torch cannot run so on meta tensors.

``missing_kernels`` registers them while it is active, as ``cuda_kernels`` does for composites.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx.experimental import _config
from torch.utils.flop_counter import flop_registry, register_flop_formula

aten = torch.ops.aten
_IN_PLACE_LISTS = (
    "_foreach_add_",
    "_foreach_addcdiv_",
    "_foreach_addcmul_",
    "_foreach_copy_",
    "_foreach_div_",
    "_foreach_lerp_",
    "_foreach_mul_",
    "_foreach_sub_",
)
"""On meta tensors they change nothing; torch would work out every shape, tensor by tensor."""


def _ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> torch.Tensor:
    """The loss of waveforms [T,B,C] of full length and targets of equal lengths."""
    frames, batch = log_probs.shape[:2]
    lengths = [targets.numel() // batch] * batch
    on_device = targets.to("meta")
    each = aten._ctc_loss(log_probs, on_device, [frames] * batch, lengths, blank, zero_infinity)[0]
    return each if reduction == 0 else each.mean() if reduction == 1 else each.sum()


def _ctc_forward(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: list[int],
    target_lengths: list[int],
    blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss [B], and the table of forward variables [B, T, 2 t + 1] kept for backward."""
    frames, batch = log_probs.shape[:2]
    alpha = log_probs.new_empty(batch, frames, 2 * max(target_lengths) + 1)
    return log_probs.new_empty(batch), alpha


def _ctc_backward(grad: torch.Tensor, log_probs: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return torch.empty_like(log_probs)


def _masked_select(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Everything: no element of a batch is padding."""
    return tensor.new_empty(torch.broadcast_shapes(tensor.shape, mask.shape).numel())


def _grouped_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """One matmul per expert; torch's own shape function refuses what is not bf16, CUDA does not.

    Rows of the result start at multiples of 16 bytes.
    """
    groups = [] if a.dim() != b.dim() else [b.size(0) if offs is None else offs.size(0)]
    rows, columns = a.size(-2), b.size(-1)
    dtype = out_dtype or a.dtype
    aligned = -(-columns * dtype.itemsize // 16) * 16 // dtype.itemsize
    strides = [*(rows * aligned for _ in groups), aligned, 1]
    return torch.empty_strided([*groups, rows, columns], strides, dtype=dtype, device="meta")


def _grouped_flops(a: Any, b: Any, *_: Any, **__: Any) -> int:
    """2 m n k of all groups: where they share a dimension, its size is their sum."""
    groups = a[0] if len(a) == len(b) == 3 else 1
    return 2 * int(groups) * int(a[-2]) * int(a[-1]) * int(b[-1])


if aten._grouped_mm not in flop_registry:  # torch 2.13 does not count it
    register_flop_formula(aten._grouped_mm)(_grouped_flops)


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """What an in-place operator returns, and does to shapes."""


@contextmanager
def missing_kernels() -> Iterator[None]:
    """Let the operators that models need run on meta tensors; undone at the end.

    Where the size of a result depends on values, every element counts as nonzero.
    """
    library = torch.library.Library("aten", "IMPL")
    library.impl("ctc_loss.Tensor", _ctc_loss, "AutogradMeta")
    library.impl("_ctc_loss", _ctc_forward, "Meta")
    library.impl("_ctc_loss_backward", _ctc_backward, "Meta")
    library.impl("masked_select", _masked_select, "Meta")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this one exists, for bf16 alone
        library.impl("_grouped_mm", _grouped_mm, "Meta", allow_override=True)
    for name in _IN_PLACE_LISTS:
        for overload in getattr(aten, name).overloads():
            library.impl(f"{name}.{overload}".removesuffix(".default"), _nothing, "Meta")
    try:
        everything = _config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
        with everything:
            yield
    finally:
        library._destroy()
