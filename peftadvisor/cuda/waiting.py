"""Waiting until a shared card has enough memory free, as the driver tells it."""

from __future__ import annotations

import time
from collections.abc import Callable

from peftadvisor.cuda.devices import driver, some_visible
from peftadvisor.units import format_bytes

PAUSE_S = 5.0
_REMEDY = "run it on the machine of the card"


def free_bytes() -> int:
    """Free memory of the first visible card, all processes considered.

    Raises:
        UsageError: no NVML, no driver, or no card.
    """
    with driver("--watch-free", _REMEDY) as nvml:
        first, *_ = some_visible(nvml, "--watch-free", _REMEDY)
        return int(nvml.nvmlDeviceGetMemoryInfo(first).free)


def wait_for_free(needed_bytes: int, most_s: float, say: Callable[[str], None]) -> int:
    """Look every few seconds until so much is free or the time is over; what was free last.

    Raises:
        UsageError: the card cannot be asked.
    """
    started = time.monotonic()
    while True:
        free = free_bytes()
        left_s = most_s - (time.monotonic() - started)
        if free >= needed_bytes or left_s <= 0:
            return free
        say(f"{format_bytes(free)} of {format_bytes(needed_bytes)} free")
        time.sleep(min(PAUSE_S, left_s))
