"""Autocast on meta tensors: the dtypes and copies that CUDA's autocast gives."""

from __future__ import annotations

import torch
from torch.nn import functional

from peftadvisor.simulator.autocast import WeightCache, autocast, autocast_kernels


def linear_parts() -> tuple[torch.Tensor, torch.nn.Parameter]:
    with torch.device("meta"):
        return torch.empty(2, 5, 8), torch.nn.Parameter(torch.empty(4, 8))


def test_products_run_in_the_low_dtype_and_gradients_return_in_the_weights_own() -> None:
    x, weight = linear_parts()
    cache = WeightCache()
    with autocast_kernels(cache):
        with autocast(torch.bfloat16, cache):
            y = functional.linear(x, weight)
            z = torch.addmm(torch.empty(4, device="meta"), x[0], weight.t())
        y.float().sum().backward()
        outside = functional.linear(x, weight)
    assert (y.dtype, z.dtype, outside.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert weight.grad is not None
    assert weight.grad.dtype is torch.float32


def test_sensitive_functions_run_in_fp32() -> None:
    x = torch.empty(2, 8, dtype=torch.bfloat16, device="meta")
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    cache = WeightCache()
    with autocast_kernels(cache), autocast(torch.bfloat16, cache):
        assert functional.layer_norm(x, (8,)).dtype is torch.float32
        assert functional.cross_entropy(x, labels).dtype is torch.float32


def test_a_trained_fp32_weight_is_cast_once_per_context() -> None:
    x, weight = linear_parts()
    cache = WeightCache()
    with autocast_kernels(cache):
        with autocast(torch.bfloat16, cache):
            assert cache.cast(weight, torch.bfloat16) is cache.cast(weight, torch.bfloat16)
            frozen = weight.detach()
            assert cache.cast(frozen, torch.bfloat16) is not cache.cast(frozen, torch.bfloat16)
            kept = cache.cast(weight, torch.bfloat16)
        assert cache.cast(weight, torch.bfloat16) is not kept


def test_nothing_stays_behind() -> None:
    cache = WeightCache()
    with autocast_kernels(cache), autocast(torch.bfloat16, cache):
        pass
    x, weight = linear_parts()
    assert not torch.is_autocast_enabled("cuda")
    assert functional.linear(x, weight).dtype is torch.float32
