"""How a calibration times: calls on a device, one by one, with its caches swept before each.

The sweep is a write to a large buffer. On a card it also keeps the device busy while the next call
is handed over, so that what the two events enclose is the device's time and not the launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch

from peftadvisor.cuda.readings import Card, open_card
from peftadvisor.errors import UsageError
from peftadvisor.profilers.devices import Bench, CpuBench, CudaBench
from peftadvisor.units import MIB

WARMUP, BATCH, MOST = 2, 3, 30
"""Calls that do not count; calls that are handed over together; calls that are timed at most."""

CPU_SWEEP_BYTES = 32 * MIB
"""Past the caches of a core; the last level of a server, which cores share, can hold more."""
CUDA_SWEEP_BYTES = 256 * MIB
"""At least, and four times the card's L2 cache; an eighth of the free memory at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A device to probe.

    Of a card: ``cuda`` is torch.cuda, or what plays its part in tests; ``used_before_bytes`` is
    what all processes held of it before this one had a context, None where the driver does not
    tell, and ``why_untold`` its reason. ``now`` is the host's clock in seconds.
    """

    bench: Bench
    cuda: Any = None
    index: int = 0
    card: Card | None = None
    used_before_bytes: int | None = None
    why_untold: str = "there is none on the CPU"
    now: Callable[[], float] = time.perf_counter

    def free_bytes(self) -> int:
        """What can be had of the device's memory."""
        if self.cuda is None:
            return int(psutil.virtual_memory().available)
        return int(self.cuda.mem_get_info(self.index)[0])

    def sweep_bytes(self) -> int:
        """The size of a buffer that drives operands out of the caches."""
        if self.cuda is None:
            return CPU_SWEEP_BYTES
        cache = int(self.cuda.get_device_properties(self.index).L2_cache_size)
        return min(max(4 * cache, CUDA_SWEEP_BYTES), self.free_bytes() // 8)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: median and quartiles of so many."""

    median_s: float
    low_s: float
    high_s: float
    repeats: int


def timing(seconds: Sequence[float]) -> Timing:
    """Median and quartiles."""
    low, median, high = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    return Timing(median, low, high, len(seconds))


class Stopwatch:
    """Times calls on a site's device; it holds the buffer of the sweep."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._buffer = torch.empty(
            site.sweep_bytes(), dtype=torch.uint8, device=torch.device(site.bench.where)
        )

    def time(self, call: Callable[[], Any], seconds: float) -> Timing:
        """Time calls for so many seconds, some at least and some at most."""
        until = self._site.now() + seconds
        for _ in range(WARMUP):
            call()
        self._site.bench.wait()
        taken: list[float] = []
        while not taken or (len(taken) < MOST and self._site.now() < until):
            taken += self._batch(call)
        return timing(taken)

    def _batch(self, call: Callable[[], Any]) -> list[float]:
        bench, marks = self._site.bench, []
        for _ in range(BATCH):
            self._buffer.zero_()
            start = bench.mark()
            call()
            marks.append((start, bench.mark()))
        bench.wait()
        return [bench.between(start, end) for start, end in marks]


@contextmanager
def open_site(device: str | None) -> Iterator[Site]:
    """The device of that name, ``cpu`` or ``cuda:N``; without one the first GPU, else the CPU.

    Raises:
        UsageError: there is none of that name here.
    """
    name = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        yield Site(bench=CpuBench())
        return
    index = _card_index(name)
    with _card(index) as (card, why):
        before = card.read().used_bytes if card else None
        untold = why or "the driver does not tell the memory in use"
        with torch.cuda.device(index):
            yield Site(
                bench=CudaBench(index),
                cuda=torch.cuda,
                index=index,
                card=card,
                used_before_bytes=before,
                why_untold=untold,
            )


def _card_index(device: str) -> int:
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise UsageError(f"'{device}' is no device to calibrate; --device takes cpu or cuda:N")
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        why = "torch sees no GPU" if built else "this torch was built without CUDA"
        raise UsageError(f"--device {device}: {why}; calibrate the cpu: --device cpu")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise UsageError(f"--device {device}: torch sees {count} GPUs, counted from cuda:0")
    return int(number or 0)


@contextmanager
def _card(index: int) -> Iterator[tuple[Card | None, str]]:
    """What the driver tells of the card, or why it tells nothing."""
    with ExitStack() as stack:
        card, why = None, ""
        try:
            card = stack.enter_context(open_card(index))
        except UsageError as error:
            why = str(error)
        yield card, why
