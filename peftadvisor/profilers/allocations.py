"""The record of every allocation on the CPU, by torch's profiler."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from torch.profiler import ProfilerActivity, profile, record_function

from peftadvisor.profilers.devices import POINTS, Held
from peftadvisor.profilers.workload import Phase, Workload
from peftadvisor.profiles import Timeline

PREFIX = "peftadvisor:"
MEMORY_EVENT = "[memory]"


def recorded_allocations(workload: Workload, steps: int) -> Held:
    """Bytes held in each phase of the first steps, optimizer states born there included.

    Parameters and buffers are there before; torch's profiler tells of what comes and goes.
    """
    static = workload.static_bytes()

    @contextmanager
    def named(phase: Phase) -> Iterator[None]:
        with record_function(f"{PREFIX}{workload.steps + 1}:{phase}"):
            yield

    with (
        _uncollected(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        for _ in range(steps):
            workload.step(named)
    events = list(profiler.profiler.kineto_results.events())
    at, held = _held(events, static)
    peaks = {(0, "load"): static}
    for event in events:
        if event.name().startswith(PREFIX):
            step, _, phase = event.name().removeprefix(PREFIX).partition(":")
            start = event.start_ns()
            inside = (at >= start) & (at <= start + event.duration_ns())
            key = (int(step), phase)
            peaks[key] = max(peaks.get(key, static), int(held[inside].max(initial=0)))
    return Held(phase_bytes=peaks, timeline=thinned((at - at[:1].sum()) / 1e9, held, "seconds"))


class AllocationMeter:
    """Every allocation on the CPU above what was there at the start; it slows what it watches.

    ``start`` begins the record and ``peak_bytes`` ends it. ``held_bytes`` are those of before.
    """

    def __init__(self, held_bytes: int) -> None:
        self._before = self._peak = held_bytes
        self._record = ExitStack()
        self._profiler: Any = None

    def start(self) -> None:
        """Forget what was before."""
        self.close()
        self._record.enter_context(_uncollected())
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._record.enter_context(self._profiler)

    def peak_bytes(self) -> int:
        """Most bytes since then."""
        if self._profiler is not None:
            profiler = self._profiler
            self.close()
            events = list(profiler.profiler.kineto_results.events())
            self._peak = int(_held(events, self._before)[1].max(initial=self._before))
        return self._peak

    def close(self) -> None:
        """End the record, if there is one."""
        self._record.close()
        self._profiler = None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Earlier runs' garbage is gone, and none is collected inside: its end would be counted."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def thinned(at: Any, held: Any, unit: Any) -> Timeline:
    """At most ``POINTS`` of a timeline: the highest of each stretch of equally many events."""
    stretches = np.array_split(np.arange(len(held)), min(POINTS, max(1, len(held))))
    kept = [part[np.argmax(held[part])] for part in stretches if len(part)]
    return Timeline(
        unit=unit,
        at=tuple(float(at[i]) for i in kept),
        held_bytes=tuple(int(held[i]) for i in kept),
    )


def _held(events: list[Any], static: int) -> tuple[Any, Any]:
    """Times in nanoseconds of all changes, and bytes held after each."""
    changes = np.array(
        sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == MEMORY_EVENT),
        dtype=np.int64,
    ).reshape(-1, 2)
    return changes[:, 0], static + np.cumsum(changes[:, 1])
