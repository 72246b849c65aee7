"""Constants of a device from the probes of its calibration.

Medians, so that a few bad probes do not matter; what was not probed keeps the value of ``base``.
Per probe, the share is the time that the spec sheet gives over the time measured, less a kernel's
start. Products alone run faster than in a step, where the card is warm and others come between:
``IN_STEP`` of the probes' share is taken. Left out: the cache, which probes start without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from peftadvisor.cost_model.kernel_classes import Floats
from peftadvisor.cost_model.matmul import matmul_seconds
from peftadvisor.data.calibrations import Calibration, Probe
from peftadvisor.data.rates import DeviceRates
from peftadvisor.specs import GpuSpec

IN_STEP = 0.9
"""Matrix products in steps over the same alone: fitted steps over measured products, on A100."""
LARGE_FLOPS = 10**10
LARGE_BYTES = 2**25
"""From here on a probe is about the rate and not about its start."""
LOW, HIGH = 0.93, 1.13
"""Factors of the 90 % interval: those of constants fitted on other runs on the same GPU.

Probes of a GPU that also has published runs are not there yet, to measure their own.
"""
KERNEL_S = 1e-6, 1e-5
"""A kernel's start lies in here, whatever the probes say."""
_MOVING = ("copy", "elementwise", "reduction")
_ATTENTION = "attention_forward"
_SIXTEEN_BIT = ("bf16", "fp16")


def rates_of_probes(calibration: Calibration, gpu: GpuSpec, base: DeviceRates) -> DeviceRates:
    """The constants that the probes show, and those of ``base`` for the rest."""
    probes = [p for p in calibration.probes if p.seconds]
    start = _start(probes, gpu, base)
    moving = [p for p in probes if p.kind in _MOVING and p.moved_bytes >= LARGE_BYTES]
    packed = [p for p in probes if p.kind == "dequantize_nf4" and p.moved_bytes >= LARGE_BYTES]
    squares = [p for p in probes if p.kind == _ATTENTION and p.dtype in _SIXTEEN_BIT]
    largest = max((p.flops for p in squares), default=0)

    def bandwidth(probe: Probe) -> float:
        return probe.moved_bytes / gpu.memory_bandwidth_bytes_per_s

    def computing(probe: Probe) -> float:
        return probe.flops / gpu.peak_flops_per_s.get(probe.dtype, np.inf)

    moved = _median_share(moving, bandwidth, start, base.bandwidth_share)
    return dataclasses.replace(
        base,
        matmul_share=_matmul(probes, gpu, _SIXTEEN_BIT, base.matmul_share),
        fp32_matmul_share=_matmul(probes, gpu, ("fp32",), base.fp32_matmul_share),
        attention_share=_median_share(
            [p for p in squares if p.flops == largest], computing, start, base.attention_share
        ),
        bandwidth_share=moved,
        optimizer_share=min(moved, base.optimizer_share * moved / base.bandwidth_share),
        dequantize_share=_median_share(packed, bandwidth, start, base.dequantize_share),
        kernel_s=start,
        dispatch_s=_median([p.seconds for p in probes if p.kind == "dispatch"], base.dispatch_s),
        low=LOW,
        high=HIGH,
        basis="calibration",
        source=f"times by the calibration of this device, {calibration.head.date[:10]}",
    )


def _median_share(
    probes: Iterable[Probe], ideal: Callable[[Probe], float], start: float, otherwise: float
) -> float:
    shares = [ideal(p) / max((p.seconds or 0.0) - start, 1e-9) for p in probes]
    return _median([share for share in shares if share > 0], otherwise)


def _matmul(
    probes: Iterable[Probe], gpu: GpuSpec, dtypes: tuple[str, ...], otherwise: float
) -> float:
    """Share of ``GpuSpec.achievable`` in a step, by the same tiles and waves as predictions."""
    large = [p for p in probes if _is_large_product(p) and p.dtype in dtypes]
    known = [p for p in large if p.dtype in gpu.peak_flops_per_s]
    if not known:
        return otherwise
    dims: Floats = np.array([(1, p.shape[0], p.shape[2], p.shape[1]) for p in known], float).T
    rate = np.array(
        [
            gpu.peak_flops_per_s[p.dtype] * gpu.achievable.get(p.dtype, gpu.achievable["default"])
            for p in known
        ]
    )
    seconds = np.array([p.seconds for p in known])
    ideal = matmul_seconds(
        dims, rate, gpu.multiprocessor_count or 1, gpu.memory_bandwidth_bytes_per_s
    )
    return IN_STEP * float(np.median(ideal / seconds))


def _is_large_product(probe: Probe) -> bool:
    return probe.kind == "matmul" and probe.flops >= LARGE_FLOPS and len(probe.shape) == 3


def _start(probes: Iterable[Probe], gpu: GpuSpec, base: DeviceRates) -> float:
    """What the shortest kernel takes beyond moving its bytes."""
    bandwidth = gpu.memory_bandwidth_bytes_per_s * base.bandwidth_share
    over = [
        (p.seconds or 0.0) - p.moved_bytes / bandwidth
        for p in probes
        if p.kind in _MOVING and p.moved_bytes < LARGE_BYTES
    ]
    return float(np.clip(min(over, default=base.kernel_s), *KERNEL_S))


def _median(values: Sequence[float | None], otherwise: float) -> float:
    known = [value for value in values if value]
    return float(np.median(known)) if known else otherwise
