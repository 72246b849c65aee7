"""Where a run is measured: how a device is awaited, its time marked and its memory read."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from peftadvisor.errors import UsageError
from peftadvisor.profilers.workload import Phase, Workload
from peftadvisor.profiles import Timeline

POINTS = 500
"""Of a timeline, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes held at most in each phase of each step; ``load`` is step 0, the first step is 1.

    ``missing`` says why the timeline or a snapshot is not there.
    """

    phase_bytes: dict[tuple[int, str], int] = field(hash=False)
    reserved_peak_bytes: int | None = None
    timeline: Timeline | None = None
    missing: dict[str, str] = field(hash=False, default_factory=dict)

    @property
    def peak(self) -> tuple[int, str]:
        """Step and phase of the peak, the first of several."""
        return max(self.phase_bytes, key=lambda at: self.phase_bytes[at])

    @property
    def peak_bytes(self) -> int:
        """Of all."""
        return self.phase_bytes[self.peak]


class Bench(Protocol):
    """One device of this machine, as the instruments use it."""

    name: str
    where: str

    def fresh(self) -> None:
        """Let go of what earlier runs left, and forget their peaks."""

    def mark(self) -> Any:
        """A point in the device's time."""

    def wait(self) -> None:
        """Until everything handed over is done."""

    def between(self, start: Any, end: Any) -> float:
        """Seconds from one mark to another, after ``wait``."""

    def held(self, workload: Workload, steps: int) -> Held:
        """What is held while a new workload makes its first steps."""


class CpuBench:
    """The processor: every allocation by torch's profiler, time by its clock."""

    name = where = "cpu"

    def fresh(self) -> None:
        """The CPU's allocator keeps nothing back."""
        gc.collect()

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def wait(self) -> None:
        """Nothing is under way."""

    def between(self, start: float, end: float) -> float:
        """Seconds of the clock."""
        return end - start

    def held(self, workload: Workload, steps: int) -> Held:
        """The record of every allocation."""
        from peftadvisor.profilers.allocations import recorded_allocations

        return recorded_allocations(workload, steps)


class CudaBench:
    """A CUDA device: the caching allocator's peaks by phase, time by events on its stream.

    ``cuda`` is torch.cuda, or what plays its part in tests, on tensors at ``where``. ``snapshot``
    is a file for the allocator's history of what is ``held``.
    """

    def __init__(
        self, index: int, cuda: Any = torch.cuda, where: str = "", snapshot: str | None = None
    ) -> None:
        self._cuda, self._index, self._snapshot = cuda, index, snapshot
        self.where = where or f"cuda:{index}"
        self.name = str(cuda.get_device_name(index))

    def fresh(self) -> None:
        """Give the cache back to the card."""
        gc.collect()
        self._cuda.empty_cache()
        self._cuda.reset_peak_memory_stats(self._index)

    def mark(self) -> Any:
        """An event behind all that was handed over."""
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Until the stream is empty."""
        self._cuda.synchronize(self._index)

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two events; the driver tells milliseconds."""
        return float(start.elapsed_time(end)) / 1000

    def held(self, workload: Workload, steps: int) -> Held:
        """The allocator's peaks, those of ``load`` since ``fresh``, and its history."""
        from peftadvisor.profilers.history import Source, recorded_history

        peaks: dict[tuple[int, str], int] = {}
        reserved = [int(self._cuda.max_memory_reserved(self._index))]
        peaks[0, "load"] = int(self._cuda.max_memory_allocated(self._index))

        @contextmanager
        def watched(phase: Phase) -> Iterator[None]:
            self._cuda.reset_peak_memory_stats(self._index)
            yield
            at = (workload.steps + 1, phase)
            now = int(self._cuda.max_memory_allocated(self._index))
            peaks[at] = max(peaks.get(at, 0), now)
            reserved.append(int(self._cuda.max_memory_reserved(self._index)))

        source = Source(cuda=self._cuda, index=self._index, snapshot=self._snapshot)
        with recorded_history(source) as history:
            for _ in range(steps):
                workload.step(watched)
        return Held(
            phase_bytes=peaks,
            reserved_peak_bytes=max(reserved),
            timeline=history.timeline,
            missing=history.missing,
        )


def open_bench(device: str, snapshot: str | None = None) -> Bench:
    """The device of that name: ``cpu``, ``cuda`` or ``cuda:N``; only a GPU writes a snapshot.

    Raises:
        UsageError: there is none of that name here.
    """
    if device == "cpu":
        return CpuBench()
    index = index_of(device)
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        why = "torch sees no GPU" if built else "this torch was built without CUDA"
        raise UsageError(f"--device {device}: {why}; measure on the cpu, or use --engine simulate")
    if index >= torch.cuda.device_count():
        raise UsageError(
            f"--device {device}: torch sees {torch.cuda.device_count()} GPUs, counted from 0"
        )
    return CudaBench(index, snapshot=snapshot)


def index_of(device: str) -> int:
    """The number in ``cuda:N``, 0 in ``cuda``.

    Raises:
        UsageError: it is neither.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdigit() or device == "cuda"):
        raise UsageError(
            f"'{device}' is no device to measure on; --device takes cpu or cuda:N "
            "(a GPU of the catalog with --engine simulate)"
        )
    return int(number or 0)
