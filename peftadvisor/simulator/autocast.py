"""Autocast for meta tensors, with CUDA's lists of operators.

torch's own autocast acts on tensors of the device it is for, so on meta tensors it does nothing.
While ``autocast`` is active the listed operators get inputs cast first, as CUDA's kernels do:
matrix products, attention and convolutions in the low dtype, sensitive functions in fp32. Casts
of trained fp32 weights are kept until the context ends, as torch's weight cache keeps them.
The lists restate the autocast operator reference of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

LOW_PRECISION = ("linear", "matmul", "conv1d", "conv2d", "conv3d")
FULL_PRECISION = ("layer_norm", "group_norm", "cross_entropy_loss", "nll_loss")
"""Composite operators of the lists: replaced for meta tensors, in front of their own parts."""

LOW_PRECISION_FUNCTIONS = (
    "torch.mm",
    "torch.bmm",
    "torch.addmm",
    "torch.baddbmm",
    "torch.einsum",
    "torch.Tensor.mm",
    "torch.Tensor.bmm",
    "torch.Tensor.addmm",
    "torch.Tensor.baddbmm",
)
"""Products with a derivative of their own: models call them by these names. Elementwise functions
of the fp32 list (pow, exp, rsqrt, sum) are left out: models call them on fp32 already."""


class WeightCache:
    """Low-precision casts of trained fp32 leaves, one per weight and context."""

    def __init__(self) -> None:
        self._casts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The tensor in a dtype; floating-point tensors only."""
        if not tensor.is_floating_point() or tensor.dtype in (dtype, torch.float64):
            return tensor
        keep = tensor.dtype is torch.float32 and tensor.requires_grad and tensor.is_leaf
        if dtype is torch.float32 or not keep:
            return tensor.to(dtype)
        if id(tensor) not in self._casts:
            self._casts[id(tensor)] = (tensor, tensor.to(dtype))
        return self._casts[id(tensor)][1]

    def clear(self) -> None:
        """Forget all casts, as leaving the outermost context does."""
        self._casts.clear()


class MetaAutocast(torch.autocast):
    """``torch.autocast`` that takes the meta device, which libraries see and pass, for CUDA."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cuda" if device_type == "meta" else device_type, *args, **kwargs)


@contextmanager
def autocast(dtype: torch.dtype, cache: WeightCache) -> Iterator[None]:
    """Autocast forward and loss; a checkpoint that is computed again enters by itself."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        cache.clear()


@contextmanager
def autocast_kernels(cache: WeightCache) -> Iterator[None]:
    """Let the listed operators cast their meta inputs whenever autocast is on."""
    library = torch.library.Library("aten", "IMPL")
    for names, low in ((LOW_PRECISION, True), (FULL_PRECISION, False)):
        for name in names:
            parts = partial(getattr(aten, name).default._op_dk, _COMPOSITE)
            library.impl(name, _casting(parts, low, cache), "AutogradMeta")
    with ExitStack() as stack:
        for path in LOW_PRECISION_FUNCTIONS:
            holder, _, name = path.removeprefix("torch.").rpartition(".")
            original = getattr(getattr(torch, holder) if holder else torch, name)
            stack.enter_context(patch(path, _casting(original, True, cache)))
        # Checkpoints enter autocast again for the device of their inputs, which is no CUDA here,
        # and a build without CUDA would turn it off.
        infer = "torch.utils.checkpoint._infer_device_type"
        stack.enter_context(patch(infer, lambda *_: "cuda"))  # a mock would keep the inputs
        unavailable = "torch.cuda.amp.common.amp_definitely_not_available"
        stack.enter_context(patch(unavailable, return_value=False))
        stack.enter_context(patch("torch.cuda.is_bf16_supported", return_value=True))
        # Leaving the outermost context clears torch's cache; ours goes with it.
        stack.enter_context(patch("torch.clear_autocast_cache", cache.clear))
        try:
            yield
        finally:
            library._destroy()


def _casting(run: Callable[..., Any], low: bool, cache: WeightCache) -> Callable[..., Any]:
    def cast_and_run(*args: Any, **kwargs: Any) -> Any:
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda") if low else torch.float32
            args = tuple(_cast(value, dtype, cache) for value in args)
            kwargs = {name: _cast(value, dtype, cache) for name, value in kwargs.items()}
        return run(*args, **kwargs)

    return cast_and_run


def _cast(value: Any, dtype: torch.dtype, cache: WeightCache) -> Any:
    if isinstance(value, torch.Tensor) and value.is_meta:
        return cache.cast(value, dtype)
    return value
