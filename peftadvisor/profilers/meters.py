"""How much memory is held, read by itself: of a CUDA device exactly, of the host by its pages."""

from __future__ import annotations

import resource
import sys
from typing import Any, Protocol

import psutil
import torch


class Meter(Protocol):
    """Reads the most bytes held since ``start``."""

    def start(self) -> None:
        """Forget what was before."""

    def peak_bytes(self) -> int:
        """Most bytes since then."""


class HostMeter:
    """The resident set of this process, libraries included.

    A peak above all earlier ones is exact, since the system keeps it; a lower one is the larger
    of what was there at the start and is there now.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start()

    def start(self) -> None:
        """Forget what was before."""
        self._first, self._highest = self._resident(), _highest()

    def peak_bytes(self) -> int:
        """Most bytes since then."""
        highest, now = _highest(), self._resident()
        return max(highest, now) if highest > self._highest else max(self._first, now)

    def _resident(self) -> int:
        return int(self._process.memory_info().rss)


class CudaMeter:
    """What the caching allocator handed out on a device, and what it reserved for it at most.

    It resets torch's own peaks: who reads those beside it sees the peak of one phase.
    ``cuda`` is torch.cuda, or what plays its part in tests.
    """

    def __init__(self, index: int, cuda: Any = torch.cuda) -> None:
        self._index, self._cuda = index, cuda
        self.reserved_peak_bytes = 0
        cuda.reset_peak_memory_stats(index)

    def start(self) -> None:
        """Forget what was before."""
        self._keep_reserved()
        self._cuda.reset_peak_memory_stats(self._index)

    def peak_bytes(self) -> int:
        """Most bytes allocated since then."""
        self._keep_reserved()
        return int(self._cuda.max_memory_allocated(self._index))

    def _keep_reserved(self) -> None:
        now = int(self._cuda.max_memory_reserved(self._index))
        self.reserved_peak_bytes = max(self.reserved_peak_bytes, now)


def meter_of(device: torch.device) -> HostMeter | CudaMeter:
    """The meter of the device that a model is on."""
    if device.type != "cuda":
        return HostMeter()
    return CudaMeter(torch.cuda.current_device() if device.index is None else device.index)


def _highest() -> int:
    """The largest resident set that this process ever had; Linux counts in KiB, macOS in bytes."""
    count = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return count if sys.platform == "darwin" else count * 1024
