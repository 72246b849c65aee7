"""Kernel uses as arrays: what class each is in, at which rate it computes, what it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase

Floats = NDArray[np.float64]


class Class(IntEnum):
    """Classes of kernels in reports; the update's are one, whatever they do."""

    MATMUL = 0
    ATTENTION = 1
    ELEMENTWISE = 2
    DEQUANTIZATION = 3
    OPTIMIZER = 4


class Rate(IntEnum):
    """The kinds of unit that compute: each has a peak on a GPU."""

    BF16 = 0
    FP16 = 1
    FP32 = 2
    INT8 = 3


_RATES: Mapping[str, Rate] = {
    "bfloat16": Rate.BF16,
    "float16": Rate.FP16,
    "int8": Rate.INT8,
    "int32": Rate.INT8,
}

_WRITES: Mapping[str, float] = {
    "_foreach_add_": 2.0,
    "_foreach_mul_": 2.0,
    "_foreach_div_": 2.0,
    "_foreach_neg_": 2.0,
    "_foreach_lerp_": 1.5,
    "_foreach_addcdiv_": 4 / 3,
}
"""Bytes moved over bytes recorded of operators that return nothing: their writes are not recorded.

``_foreach_addcmul_`` reads one operand twice and records it twice, which makes up for its write.
"""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Kernel uses, an entry each; ``dims`` are batch, m, n, k of a product (0 where there is none).

    ``bytes`` are moved and ``flops`` computed by one call; ``backward`` and ``tiled`` tell the
    attention kernels apart (``tiled``: the memory-efficient one).
    """

    kind: NDArray[np.int64]
    rate: NDArray[np.int64]
    phase: NDArray[np.int64]
    count: Floats
    flops: Floats
    bytes: Floats
    dims: Floats
    backward: NDArray[np.bool_]
    tiled: NDArray[np.bool_]


def tabulate(uses: Sequence[KernelUse]) -> Kernels:
    """Kernel uses as arrays."""
    named = _of_names(tuple([use.name for use in uses]))
    phase = np.array([use.phase for use in uses], dtype=np.int64)
    flops = np.array([use.flops for use in uses], dtype=np.float64)
    kind = np.where((named.kind == Class.ELEMENTWISE) & (flops > 0), Class.MATMUL, named.kind)
    kind = np.where(phase == Phase.OPTIMIZER, Class.OPTIMIZER, kind)
    dims = np.zeros((4, len(uses)))
    for at in np.flatnonzero(kind == Class.MATMUL).tolist():
        dims[:, at] = _dims(uses[at])
    return Kernels(
        kind=kind,
        rate=named.rate,
        phase=phase,
        count=np.array([use.count for use in uses], dtype=np.float64),
        flops=flops,
        bytes=named.moved * np.array([use.touched_bytes for use in uses], dtype=np.float64),
        dims=dims,
        backward=named.backward,
        tiled=named.tiled,
    )


class _Named(NamedTuple):
    """What kernels' names tell; ``moved`` is bytes moved over bytes recorded."""

    kind: NDArray[np.int64]
    rate: NDArray[np.int64]
    moved: Floats
    backward: NDArray[np.bool_]
    tiled: NDArray[np.bool_]


@lru_cache(maxsize=1024)
def _of_names(names: tuple[str, ...]) -> _Named:
    """One recording has the same names at every batch and length."""
    rows = list(zip(*map(_named, names), strict=True)) or [()] * 5
    kind, rate, moved, backward, tiled = rows
    return _Named(
        np.array(kind, dtype=np.int64),
        np.array(rate, dtype=np.int64),
        np.array(moved, dtype=np.float64),
        np.array(backward, dtype=np.bool_),
        np.array(tiled, dtype=np.bool_),
    )


def _named(name: str) -> tuple[int, int, float, bool, bool]:
    """What a kernel's name tells: class, rate, bytes moved over recorded, backward, tiled."""
    operator, _, dtype = name.rpartition(".")
    kind = Class.ELEMENTWISE
    if "scaled_dot_product" in operator or "flash_attention" in operator:
        kind = Class.ATTENTION
    elif "dequantize" in operator or "unpack_maxima" in operator:
        kind = Class.DEQUANTIZATION
    return (
        kind,
        _RATES.get(dtype, Rate.FP32),
        _WRITES.get(operator, 1.0),
        "backward" in operator,
        "efficient" in operator,
    )


def _dims(use: KernelUse) -> tuple[float, float, float, float]:
    """Batch, m, n, k of a product; a cube of as many FLOPs where the shapes do not tell."""
    s = use.shapes
    if len(s) == 4 and 2 * s[0] * s[1] * s[3] == use.flops:
        return 1.0, s[0], s[3], s[1]
    if len(s) == 6 and 2 * s[0] * s[1] * s[2] * s[5] == use.flops:
        return s[0], s[1], s[5], s[2]
    side = (use.flops / 2) ** (1 / 3)
    return 1.0, side, side, side
