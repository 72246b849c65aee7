"""Kernel uses as arrays: what class each is in, at which rate it computes, what it moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.parts import SHAPE_WIDTH
from peftadvisor.simulator.recording import KernelTable, KernelUse
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
    """Kernel uses at one point as arrays."""
    shapes = [[*use.shapes, *[0] * (SHAPE_WIDTH - len(use.shapes))] for use in uses]
    return classified(
        KernelTable(
            names=tuple([use.name for use in uses]),
            phase=np.array([use.phase for use in uses], dtype=np.int64),
            count=np.array([use.count for use in uses], dtype=np.int64),
            flops=np.array([[use.flops] for use in uses]).reshape(-1, 1),
            touched_bytes=np.array([[use.touched_bytes] for use in uses]).reshape(-1, 1),
            dimensions=np.array([len(use.shapes) for use in uses], dtype=np.int64),
            shapes=np.array(shapes, dtype=np.int64).reshape(-1, SHAPE_WIDTH, 1),
        )
    )


def classified(table: KernelTable) -> Kernels:
    """Kernel uses at many points as arrays, one entry per use and point, points running fastest."""
    points = table.flops.shape[1]
    named = _repeated(_of_names(table.names), points)
    phase = np.repeat(table.phase, points)
    flops = table.flops.astype(np.float64).ravel()
    kind = np.where((named.kind == Class.ELEMENTWISE) & (flops > 0), Class.MATMUL, named.kind)
    kind = np.where(phase == Phase.OPTIMIZER, Class.OPTIMIZER, kind)
    return Kernels(
        kind=kind,
        rate=named.rate,
        phase=phase,
        count=np.repeat(table.count.astype(np.float64), points),
        flops=flops,
        bytes=named.moved * table.touched_bytes.astype(np.float64).ravel(),
        dims=np.where(kind == Class.MATMUL, _dims(table), 0.0),
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


def _repeated(named: _Named, points: int) -> _Named:
    return _Named(
        np.repeat(named.kind, points),
        np.repeat(named.rate, points),
        np.repeat(named.moved, points),
        np.repeat(named.backward, points),
        np.repeat(named.tiled, points),
    )


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


def _dims(table: KernelTable) -> Floats:
    """Batch, m, n, k of products; a cube of as many FLOPs where the shapes do not tell."""
    flops = table.flops.astype(np.float64)
    s = table.shapes.astype(np.float64).transpose(1, 0, 2)
    ones = np.ones_like(flops)
    side = np.cbrt(flops / 2)
    plain = (table.dimensions == 4)[:, None] & (2 * s[0] * s[1] * s[3] == flops)
    batched = (table.dimensions == 6)[:, None] & (2 * s[0] * s[1] * s[2] * s[5] == flops)
    told = np.where(batched, np.stack([s[0], s[1], s[5], s[2]]), np.stack([ones, side, side, side]))
    return np.where(plain, np.stack([ones, s[0], s[3], s[1]]), told).reshape(4, -1)
