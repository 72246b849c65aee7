"""Instruments on a workload: each watches a few steps and says what it saw, and leaves nothing.

They are used one at a time, since they disturb each other: allocations under torch's profiler,
FLOPs under its counter, time alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from peftadvisor.profilers.workload import Phase, Workload

PREFIX = "peftadvisor:"
MEMORY_EVENT = "[memory]"


@dataclass(frozen=True, slots=True)
class Allocations:
    """Bytes held on the CPU: at most, in each phase, and what never changes."""

    static_bytes: int
    peak_bytes: int
    peak_phase: str
    phase_bytes: dict[str, int]


def allocations(workload: Workload, steps: int = 2) -> Allocations:
    """The record of every allocation of a few steps on the CPU, by torch's profiler.

    The first step is in it: optimizer states are born there. Static are parameters and buffers.
    """
    static = workload.static_bytes()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(steps):
            workload.step(_range)
    events = list(profiler.profiler.kineto_results.events())
    changes = np.array(
        sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == MEMORY_EVENT)
    ).reshape(-1, 2)
    held = static + np.cumsum(changes[:, 1])
    peaks = {"load": static}
    for event in events:
        if event.name().startswith(PREFIX):
            phase, start = event.name().removeprefix(PREFIX), event.start_ns()
            inside = (changes[:, 0] >= start) & (changes[:, 0] <= start + event.duration_ns())
            peaks[phase] = max(peaks.get(phase, 0), int(held[inside].max(initial=0)))
    highest = max(peaks, key=lambda phase: peaks[phase])
    return Allocations(static, int(held.max(initial=static)), highest, peaks)


@contextmanager
def _range(phase: Phase) -> Iterator[None]:
    with record_function(PREFIX + phase):
        yield


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


def seconds(workload: Workload, steps: int, warmup: int = 2) -> Seconds:
    """Wall time of steps and of their phases; warm-up steps are not counted."""
    wait = torch.cuda.synchronize if workload.device.type == "cuda" else _nothing
    totals: list[float] = []
    parts: dict[str, list[float]] = {}

    @contextmanager
    def clock(phase: Phase) -> Iterator[None]:
        wait()
        started = time.perf_counter()
        yield
        wait()
        spent[phase] = spent.get(phase, 0.0) + time.perf_counter() - started

    for number in range(warmup + steps):
        spent: dict[str, float] = {}
        started = time.perf_counter()
        workload.step(clock)
        if number >= warmup:
            totals.append(time.perf_counter() - started)
            for phase, took in spent.items():
                parts.setdefault(phase, []).append(took)
    medians = {phase: float(np.median(values)) for phase, values in parts.items()}
    return Seconds(tuple(totals), medians)


def flops(workload: Workload) -> dict[str, int]:
    """FLOPs of one step by phase, by torch's counter (1 MAC = 2 FLOPs)."""
    counted: dict[str, int] = {}

    @contextmanager
    def count(phase: Phase) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        counted[phase] = counted.get(phase, 0) + counter.get_total_flops()

    workload.step(count)
    return counted


def _nothing() -> Any:
    """There is nothing to wait for."""
