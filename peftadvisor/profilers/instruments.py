"""Instruments on a workload: each watches a few steps and says what it saw, and leaves nothing.

They are used one at a time, since they disturb each other: time alone, FLOPs under torch's
counter, memory on a workload of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from peftadvisor.profilers.devices import Bench
from peftadvisor.profilers.quantizing import product_flops
from peftadvisor.profilers.workload import Phase, Workload
from peftadvisor.profiles import ForwardCount


@dataclass(frozen=True, slots=True)
class Seconds:
    """Times of optimizer steps: median, quartiles, and the medians of the phases."""

    steps: tuple[float, ...]
    phases: dict[str, float]

    @property
    def median_s(self) -> float:
        """Median step."""
        return float(np.median(self.steps))

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """First and third quartile of the steps."""
        low, high = np.quantile(self.steps, (0.25, 0.75))
        return float(low), float(high)


def seconds(workload: Workload, bench: Bench, steps: int, warmup: int = 2) -> Seconds:
    """Time of steps and of their phases; warm-up steps are not counted.

    Phases are marked on the device's own time line, which nothing waits for inside a step.
    """
    totals: list[float] = []
    parts: dict[str, list[float]] = {}
    for number in range(warmup + steps):
        marks: list[tuple[Phase, Any, Any]] = []

        @contextmanager
        def clock(phase: Phase, marks: list[tuple[Phase, Any, Any]] = marks) -> Iterator[None]:
            start = bench.mark()
            yield
            marks.append((phase, start, bench.mark()))

        started = bench.mark()
        workload.step(clock)
        ended = bench.mark()
        bench.wait()
        if number < warmup:
            continue
        totals.append(bench.between(started, ended))
        spent: dict[str, float] = {}
        for phase, start, end in marks:
            spent[phase] = spent.get(phase, 0.0) + bench.between(start, end)
        for name, took in spent.items():
            parts.setdefault(name, []).append(took)
    medians = {phase: float(np.median(values)) for phase, values in parts.items()}
    return Seconds(tuple(totals), medians)


def flops(workload: Workload) -> dict[str, int]:
    """FLOPs of one step by phase, by torch's counter (1 MAC = 2 FLOPs)."""
    counted: dict[str, int] = {}

    @contextmanager
    def count(phase: Phase) -> Iterator[None]:
        with FlopCounterMode(display=False, custom_mapping=product_flops()) as counter:
            yield
        counted[phase] = counted.get(phase, 0) + counter.get_total_flops()

    workload.step(count)
    return counted


def fvcore_forward(workload: Workload) -> ForwardCount:
    """FLOPs of one forward pass as fvcore counts them: 2 × its MACs, and what it leaves out.

    fvcore traces with torch.jit, which not every model takes; the failure is the answer then.
    """
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        return ForwardCount(flops=None, failure="fvcore is not installed")
    names = list(workload.batch)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = workload.model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.model(**dict(zip(names, tensors, strict=True))).loss
            return made

    analysis = FlopCountAnalysis(Loss(), tuple(workload.batch.values()))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            macs = int(analysis.total())
        except Exception as error:  # the tracer's reasons are many
            text = " ".join(str(error).split())[:120]
            return ForwardCount(flops=None, failure=f"{type(error).__name__}: {text}")
        uncounted = {name: int(n) for name, n in analysis.unsupported_ops().items()}
    return ForwardCount(flops=2 * macs, uncounted=dict(sorted(uncounted.items())))
