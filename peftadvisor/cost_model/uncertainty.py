"""How far predicted device memory may be off, from published runs: intervals and risk.

A run's score is log(measured / predicted) of its device memory. The scores at hand are of published
runs (``memory_errors.csv``, made by ``benchmarks/accuracy.py``) on which nothing in the memory
model was fitted. Every source counts the same, however many rows it has: its rows share software
and habits, and a new run is most like a run of a new source. Two kinds of run are scored apart:
with fused losses, which held less than others and reserved as much, for reasons not found; and
those on several GPUs, whose collectives have memory and streams of their own.

The score of a new run is taken to follow a mixture of Student's t with three degrees of freedom and
scale WIDTH around the scores at hand: smooth, with tails wider than what was seen. The 90 %
interval holds its middle; the probability of running out is its upper tail.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from peftadvisor.data.memory_errors import Kind, MemoryMiss, memory_misses
from peftadvisor.specs import Loss

LEVEL = 0.90
WIDTH = 0.01
"""Scale of the t around a score: runs of one source, model and method differ by about that."""

_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of runs, and their weights, which sum to one."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    def above(self, score: float) -> float:
        """Probability that a new run's score is larger."""
        t = (score - self.values) / (WIDTH * math.sqrt(3))
        below = 0.5 + (np.arctan(t) + t / (1 + t**2)) / math.pi  # Student's t, 3 degrees
        return float(np.dot(self.weights, 1 - below))

    def quantile(self, share: float) -> float:
        """The score below which a share of new runs lies."""
        low, high = float(self.values.min()) - 1, float(self.values.max()) + 1
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.above(middle) < 1 - share else (middle, high)
        return (low + high) / 2

    def factors(self) -> tuple[float, float]:
        """The 90 % interval, as factors of the prediction."""
        tail = (1 - LEVEL) / 2
        return math.exp(self.quantile(tail)), math.exp(self.quantile(1 - tail))


def scores_of(misses: Iterable[MemoryMiss]) -> Scores:
    """Scores of published runs, every source with the same weight."""
    kept = list(misses)
    rows = Counter(miss.source for miss in kept)
    return Scores(
        np.array([math.log(m.measured_bytes / m.predicted_bytes) for m in kept]),
        np.array([1 / (len(rows) * rows[m.source]) for m in kept]),
    )


def kind_of(loss: Loss, gpus: int) -> Kind:
    """The kind of a run."""
    if gpus > 1:
        return "several"
    return "plain" if loss == "torch" else "fused"


def alike(misses: Iterable[MemoryMiss], kind: Kind) -> list[MemoryMiss]:
    """Runs of that kind; all where there is none."""
    every = list(misses)
    return [miss for miss in every if miss.kind == kind] or every


@cache
def bundled_scores(kind: Kind) -> Scores:
    """Those of all sources, for runs of that kind.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return scores_of(alike(memory_misses(), kind))


@cache
def interval_factors(kind: Kind) -> tuple[float, float]:
    """The 90 % interval of device memory, as factors of the prediction."""
    return bundled_scores(kind).factors()
