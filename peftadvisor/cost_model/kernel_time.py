"""Seconds of single kernels: computing and moving bytes overlap, but not fully.

    t = (t_compute ^ 4 + t_memory ^ 4) ^ (1/4)          in seconds, after ``kernel_s`` of start

t_compute: products by tiles and waves (``matmul``); attention by its FLOPs, the backward kernels
and the memory-efficient kernel (which masks, and skips nothing) slower than flash forward.
t_memory: bytes over the share of the bandwidth that such kernels reach. Up to the size of the
cache a part of the bytes is found there. Left out: clocks that fall as the card heats, kernels
that run side by side, operators that launch several kernels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.cost_model.kernel_classes import Class, Floats, Kernels, Rate
from peftadvisor.cost_model.matmul import matmul_seconds
from peftadvisor.data.rates import DeviceRates
from peftadvisor.specs import GpuSpec

OVERLAP = 4
"""Exponent of the sum: at equal times a kernel takes 19 % longer than by either alone."""
BACKWARD_OF_FORWARD = 0.75
"""Share of the forward kernel's FLOP/s that attention's backward reaches."""
TILED_OF_FLASH = 1 / 3
"""Share of flash attention's counted FLOP/s that the memory-efficient kernel reaches."""

_KEYS: tuple[tuple[str, ...], ...] = (
    ("bf16", "fp16", "fp32"),
    ("fp16", "fp32"),
    ("fp32",),
    ("int8", "fp16", "fp32"),
)
"""Per ``Rate``, the peaks that stand for it, the first known one."""


class KernelSeconds(NamedTuple):
    """Per kernel use, seconds of one call without its start; and which of the two bounds it."""

    busy: Floats
    computes: NDArray[np.bool_]


def kernel_seconds(kernels: Kernels, gpu: GpuSpec, rates: DeviceRates) -> KernelSeconds:
    """Seconds that one call of each kernel keeps the card busy."""
    compute = _compute_seconds(kernels, gpu, rates)
    memory = _memory_seconds(kernels, gpu, rates)
    busy = (compute**OVERLAP + memory**OVERLAP) ** (1 / OVERLAP)
    return KernelSeconds(busy, compute >= memory)


def _compute_seconds(kernels: Kernels, gpu: GpuSpec, rates: DeviceRates) -> Floats:
    peaks, reached = _peaks(gpu, rates)
    bandwidth = gpu.memory_bandwidth_bytes_per_s * rates.bandwidth_share
    seconds = kernels.flops / reached[kernels.rate]
    products = np.flatnonzero(kernels.kind == Class.MATMUL)
    seconds[products] = matmul_seconds(
        kernels.dims[:, products],
        reached[kernels.rate[products]],
        gpu.multiprocessor_count or 1,
        bandwidth * rates.cache_gain,
    )
    attention = kernels.kind == Class.ATTENTION
    slower = np.where(kernels.tiled, TILED_OF_FLASH, 1.0)
    slower *= np.where(kernels.backward, BACKWARD_OF_FORWARD, 1.0)
    rate = peaks[kernels.rate] * rates.attention_share * slower
    return np.where(attention, kernels.flops / rate, seconds)


def _memory_seconds(kernels: Kernels, gpu: GpuSpec, rates: DeviceRates) -> Floats:
    """A kernel of x bytes finds the share 1 - x / cache of them in the cache.

    The update and 4-bit weights come to what was last touched a step ago: none of it is there.
    """
    spec = gpu.memory_bandwidth_bytes_per_s
    share = np.full(len(kernels.kind), rates.bandwidth_share)
    share[kernels.kind == Class.OPTIMIZER] = rates.optimizer_share
    share[kernels.kind == Class.DEQUANTIZATION] = rates.dequantize_share
    near = np.maximum(0.0, 1.0 - kernels.bytes / max(1, rates.cache_bytes))
    near[(kernels.kind == Class.OPTIMIZER) | (kernels.kind == Class.DEQUANTIZATION)] = 0.0
    seconds: Floats = kernels.bytes / (spec * share) * (1 - near * (1 - 1 / rates.cache_gain))
    return seconds


@lru_cache(maxsize=256)
def _peaks(gpu: GpuSpec, rates: DeviceRates) -> tuple[Floats, Floats]:
    """Per ``Rate``, the card's peak in FLOP/s, and what matrix products reach in a step."""
    keys = [next((k for k in keys if k in gpu.peak_flops_per_s), "fp32") for keys in _KEYS]
    peaks = np.array([gpu.peak_flops_per_s.get(key, np.inf) for key in keys])
    alone = np.array([gpu.achievable.get(key, gpu.achievable["default"]) for key in keys])
    share = np.full(len(Rate), rates.matmul_share)
    share[[key == "fp32" for key in keys]] = rates.fp32_matmul_share
    return peaks, peaks * alone * share
