"""What a GPU reaches of its spec sheet in training steps, and the bundled values of it.

Every line of ``gpu_rates.csv`` was fitted on published step times of one GPU; the line
``default`` is their pooled value, for all other GPUs (``benchmarks/fit_rates.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from peftadvisor.data.tables import Row, catalog_path, read_table

Basis = Literal["calibration", "fitted", "spec"]
"""Where constants come from: probes of that device, published runs on that GPU, defaults."""

DEFAULT = "default"
_SHARES = (
    "matmul_share",
    "fp32_matmul_share",
    "attention_share",
    "bandwidth_share",
    "optimizer_share",
    "dequantize_share",
)
_NUMBERS = (*_SHARES, "cache_gain", "kernel_s", "dispatch_s", "low", "high")
_COLUMNS = ("gpu_id", *_NUMBERS, "runs", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRates:
    """Constants of one device; shares are of the dense peaks and the bandwidth in ``GpuSpec``.

    ``matmul_share`` (16 bit, int8) and ``fp32_matmul_share`` are of what large matrix products
    alone reach (``GpuSpec.achievable``). ``attention_share`` is of the peak, for fused kernels
    whose FLOPs count the full square of tokens: above 1 where causal masks skip half of it.
    Kernels that move less than ``cache_bytes`` find a part of it in the cache, which is
    ``cache_gain`` times as fast. ``kernel_s`` passes from the end of one kernel to the work of the
    next, ``dispatch_s`` is the host's time for one operator of a forward pass. ``low`` and
    ``high`` are the factors of a 90 % interval of the step time.
    """

    matmul_share: float
    fp32_matmul_share: float
    attention_share: float
    bandwidth_share: float
    optimizer_share: float
    dequantize_share: float
    cache_gain: float
    cache_bytes: int
    kernel_s: float
    dispatch_s: float
    low: float
    high: float
    basis: Basis
    source: str


def bundled_rates(gpu_id: str) -> DeviceRates:
    """The fitted line of this GPU, else the default.

    Raises:
        UsageError: the bundled table is damaged.
    """
    rows, caches = _rows(), _caches()
    fitted = gpu_id in rows
    row = rows[gpu_id if fitted else DEFAULT]
    runs = f"{row.text('runs')} published runs ({row.text('source')})"
    return DeviceRates(
        **{name: row.number(name) for name in _NUMBERS},
        cache_bytes=caches.get(gpu_id, 0),
        basis="fitted" if fitted else "spec",
        source=(
            f"times by constants fitted on {runs} on this GPU"
            if fitted
            else "uncalibrated: spec-sheet rates and efficiencies of other GPUs"
        ),
    )


def fitted_gpus() -> tuple[str, ...]:
    """Ids of the GPUs that have constants of their own."""
    return tuple(gpu_id for gpu_id in _rows() if gpu_id != DEFAULT)


@cache
def _rows() -> Mapping[str, Row]:
    rows = read_table(catalog_path("gpu_rates.csv"), _COLUMNS)
    return {row.text("gpu_id"): row for row in rows}


@cache
def _caches() -> Mapping[str, int]:
    """Bytes of the last-level cache, where they are known."""
    rows = read_table(catalog_path("gpus.csv"), ("id", "l2_cache_bytes"))
    sizes = {row.text("id"): row.optional_integer("l2_cache_bytes") for row in rows}
    return {gpu_id: size for gpu_id, size in sizes.items() if size}
