"""A card that is not there: plays back what the allocator, its events and the driver told.

Tensors are on the CPU; ``torch.cuda`` and ``pynvml`` are asked here instead.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from peftadvisor.profilers.devices import Bench, CudaBench
from peftadvisor.profilers.profiling import measured_profile
from peftadvisor.profiles import Profile
from peftadvisor.units import MIB

NAME = "NVIDIA A100-SXM4-40GB"
PEAKS = (
    # allocated, reserved in MiB: at load, then of forward, backward, optimizer in two steps
    (100, 110),
    (180, 200),
    (260, 300),
    (150, 300),
    (190, 300),
    (270, 320),
    (160, 320),
)
USED_MIB = (900, 1300, 1350, 1340)
"""Of the card as the driver tells it: before, then while steps run (the last again and again)."""
HISTORY = (
    # action, bytes asked for, microseconds: what the allocator did while it was watched
    ("segment_alloc", 40 * MIB, 1_000_000),
    ("alloc", 30 * MIB, 1_000_100),
    ("alloc", 1000, 1_000_200),
    ("free_requested", 30 * MIB, 1_250_100),
    ("free_completed", 30 * MIB, 1_250_100),
    ("alloc", 512, 2_000_100),
)
STEP_MS = {"step": 40.0, "forward": 10.0, "backward": 25.0, "optimizer": 5.0}


class Lost(Exception):
    """The driver's error, with the number that NVML gives it."""

    def __init__(self, text: str, value: int = 999) -> None:
        super().__init__(text)
        self.value = value


@dataclass
class FakeEvent:
    """An event of the stream; time passes in whole milliseconds between events."""

    clock: Iterator[int]
    at_ms: int = 0

    def record(self) -> None:
        self.at_ms = next(self.clock)

    def elapsed_time(self, end: FakeEvent) -> float:
        return float(end.at_ms - self.at_ms)


@dataclass
class FakeMemory:
    """What of torch.cuda.memory is used: ``events`` played back, of device 0.

    ``refuses`` names functions that raise. ``asked`` are the settings of the history, in turn.
    """

    events: Sequence[tuple[str, int, int]] = HISTORY
    refuses: tuple[str, ...] = ()
    asked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on(self) -> bool:
        return bool(self.asked) and self.asked[-1]["enabled"] is not None

    def _record_memory_history(self, **settings: Any) -> None:
        if "_record_memory_history" in self.refuses:
            raise RuntimeError("cudaMallocAsync does not yet support recordHistory")
        self.asked.append(settings)

    def _snapshot(self) -> dict[str, Any]:
        assert self.on, "the history is lost when it is switched off"
        if "_snapshot" in self.refuses:
            raise RuntimeError("no snapshot of\n this allocator")
        names = ("action", "size", "time_us")
        trace = [dict(zip(names, event, strict=True)) for event in self.events]
        return {"segments": [], "device_traces": [trace, []]}


@dataclass
class FakeCuda:
    """What of torch.cuda is used. ``break_at`` raises ``error`` at that reset of the peaks."""

    break_at: int = -1
    error: Callable[[], Exception] = RuntimeError
    peaks: list[tuple[int, int]] = field(default_factory=lambda: list(PEAKS))
    resets: int = 0
    clock: Iterator[int] = field(default_factory=lambda: itertools.count(0, 10))
    memory: Any = field(default_factory=FakeMemory)

    def get_device_name(self, index: int) -> str:
        return NAME

    def empty_cache(self) -> None:
        pass

    def synchronize(self, index: int) -> None:
        pass

    def Event(self, enable_timing: bool) -> FakeEvent:  # noqa: N802
        assert enable_timing
        return FakeEvent(self.clock)

    def reset_peak_memory_stats(self, index: int) -> None:
        if self.resets == self.break_at:
            raise self.error()
        self.resets += 1

    def memory_allocated(self, index: int) -> int:
        return self._now()[0] * MIB

    def max_memory_allocated(self, index: int) -> int:
        return self._now()[0] * MIB

    def max_memory_reserved(self, index: int) -> int:
        return self._now()[1] * MIB

    def _now(self) -> tuple[int, int]:
        """Readings follow the resets; the first two are for the two fresh starts."""
        return self.peaks[max(0, self.resets - 2)]


class FakeNvml:
    """What of pynvml is used. ``without`` names questions that the driver does not know."""

    NVMLError = Lost
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_CLOCK_SM = 1

    def __init__(self, *, without: tuple[str, ...] = (), mig: int = 0, lost_at: int = -1) -> None:
        self.without, self.mig, self.lost_at = without, mig, lost_at
        self.looks = self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in object.__getattribute__(self, "without"):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"570.86.15"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return NAME

    def nvmlDeviceGetMigMode(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return self.mig, self.mig

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if self.looks == self.lost_at:
            raise Lost("GPU is lost", self.NVML_ERROR_GPU_IS_LOST)
        used = USED_MIB[min(self.looks, len(USED_MIB) - 1)]
        self.looks += 1
        return SimpleNamespace(used=used * MIB)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 250_000

    def nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:  # noqa: N802
        return 1410

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=80, memory=40)


def fake_bench(device: str, snapshot: str | None = None) -> Bench:
    """The fake card, which works."""
    return CudaBench(0, FakeCuda(), where="cpu", snapshot=snapshot)


def full_bench(device: str) -> Bench:
    """The fake card, which runs out of memory in the first backward pass that is watched."""
    full = FakeCuda(break_at=3, error=lambda: torch.OutOfMemoryError("tried to allocate 2 GiB"))
    return CudaBench(0, full, where="cpu")


def lost_bench(device: str) -> Bench:
    """The fake card, which falls off the bus."""
    lost = FakeCuda(break_at=3, error=lambda: RuntimeError("CUDA error: unspecified failure"))
    return CudaBench(0, lost, where="cpu")


def on_fake_card(
    *run: Any, bench_of: Callable[[str], Bench] = fake_bench, **options: Any
) -> Profile:
    """``measured_profile`` with the fake driver, for a process of its own."""
    sys.modules["pynvml"] = FakeNvml()  # type: ignore[assignment]
    return measured_profile(*run, bench_of=bench_of, **options)
