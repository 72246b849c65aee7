"""What a recording is made of: formulas of batch and lengths, events, blocks, storages, kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftadvisor.simulator.polynomials import Term

Integers = NDArray[np.int64]

BASE_UNITS = 5
MIDDLE = 2
ROUNDING_BYTES = 512
"""The caching allocator rounds every allocation up to this."""


@dataclass(frozen=True, slots=True)
class Formulas:
    """Many formulas over shared terms, all integers.

    ``coefficients`` is formula × term; ``depth`` is formula × stack, what one more unit of the
    stack adds to things outside its layers (a list over all weights).
    """

    terms: tuple[Term, ...]
    coefficients: Integers
    depth: Integers

    def at(self, points: Integers, units: Sequence[int]) -> Integers:
        """Every formula's value, formula × point, at points (b, s, t) and these depths."""
        extra = np.asarray(units, dtype=np.int64) - BASE_UNITS
        grid = np.stack([term.values(points) for term in self.terms])
        return np.asarray(self.coefficients @ grid + (self.depth @ extra)[:, None])


@dataclass(frozen=True, slots=True)
class Events:
    """The events of the base run, in order, one entry each.

    ``kind``, ``ref`` (storage or kernel row), ``segment``, ``phase``; ``block`` numbers the
    maximal stretches that are played together.
    """

    kind: NDArray[np.int8]
    ref: NDArray[np.int32]
    segment: NDArray[np.int8]
    phase: NDArray[np.int8]
    block: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Stretches of events: the stack and base layer (-1: played once, no layer) of each."""

    stack: NDArray[np.int8]
    layer: NDArray[np.int8]
    chain: NDArray[np.int32]
    descending: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Storages:
    """Per storage: its formula, owner, and the same storage of the middle layer (or itself)."""

    formula: NDArray[np.int32]
    owner: NDArray[np.int8]
    canonical: NDArray[np.int32]
    birth_block: NDArray[np.int32]


SHAPE_WIDTH = 10
NO_FORMULA = -1


@dataclass(frozen=True, slots=True)
class Kernels:
    """Per kernel: its name and the formulas of its FLOPs, of the bytes it touches, of its shapes.

    ``shapes`` holds the dimensions of the first two inputs of kernels with FLOPs, one after
    another, padded by NO_FORMULA to SHAPE_WIDTH.
    """

    names: tuple[str, ...]
    name: NDArray[np.int16]
    flops: NDArray[np.int32]
    touched: NDArray[np.int32]
    shapes: NDArray[np.int32]
