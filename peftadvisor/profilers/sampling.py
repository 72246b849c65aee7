"""A thread that looks at the card and at this process while a run goes on."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

from peftadvisor.cuda.readings import Card, CardLostError, Reading
from peftadvisor.profiles import DeviceUse

EVERY_S = 0.02
"""Between two looks. A peak that is shorter than this may be missed; the allocator's is exact."""


class Sampler:
    """A context manager: samples until it is left, from before the first line inside.

    ``card`` is None where the driver tells nothing; the process's resident set is sampled anyway.
    """

    def __init__(self, card: Card | None, *, every_s: float = EVERY_S) -> None:
        self._card, self._every_s = card, every_s
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._lost = ""
        self.readings: list[Reading] = []
        self.host_peak_bytes = 0

    def __enter__(self) -> Sampler:
        """Look once, then start the thread."""
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread and look a last time."""
        self._stop.set()
        self._thread.join()
        self._look()

    def use(self, baseline: Reading, step_s: float, step_tokens: int) -> DeviceUse:
        """What was seen, against the card before the run; energy is mean power × time."""
        power = _mean([r.power_w for r in self.readings])
        clocks = [float(r.sm_clock_hz) for r in self.readings if r.sm_clock_hz is not None]
        used = [r.used_bytes for r in self.readings if r.used_bytes is not None]
        before = baseline.used_bytes
        missing = dict(self._card.missing) if self._card else {}
        if self._lost:
            missing["readings"] = self._lost
        return DeviceUse(
            baseline_bytes=before,
            peak_bytes=max(used) - before if used and before is not None else None,
            mean_power_w=power,
            joules_per_step=None if power is None else power * step_s,
            joules_per_token=None if power is None else power * step_s / step_tokens,
            median_sm_clock_hz=int(sorted(clocks)[len(clocks) // 2]) if clocks else None,
            mean_utilization=_mean([r.utilization for r in self.readings]),
            readings=len(self.readings),
            missing=missing,
        )

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        self.host_peak_bytes = max(self.host_peak_bytes, self._process.memory_info().rss)
        if self._card is None or self._lost:
            return
        try:
            self.readings.append(self._card.read())
        except CardLostError as error:
            self._lost = str(error)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
