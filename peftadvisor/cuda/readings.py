"""What the driver tells of a card while it works: memory, power, clock, utilization; by NVML.

A question that the card or the driver does not know is asked once, and its reason kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peftadvisor.cuda.devices import driver, is_split, visible
from peftadvisor.errors import UsageError

ASKING = "readings of the card"
REMEDY = "memory as torch counts it is measured all the same"


class CardLostError(UsageError):
    """The card does not answer any more: it fell off the bus, or needs a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at a card; None is what it does not tell.

    ``used_bytes`` is of all processes, ``utilization`` the share of the driver's last sampling
    period (up to a second) in which a kernel ran.
    """

    used_bytes: int | None = None
    power_w: float | None = None
    sm_clock_hz: int | None = None
    utilization: float | None = None


class Card:
    """One GPU as the driver tells of it; ``missing`` says why a question has no answer."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        self.missing: dict[str, str] = {}
        self.driver_version = str(self._ask("driver version", self._driver) or "unknown")

    @property
    def name(self) -> str:
        """As the driver names it."""
        name = self._nvml.nvmlDeviceGetName(self._handle)
        return name.decode() if isinstance(name, bytes) else str(name)

    def read(self) -> Reading:
        """A reading, now.

        Raises:
            CardLostError: the card is gone.
        """
        return Reading(
            used_bytes=self._ask("memory", self._used_bytes),
            power_w=self._ask("power", self._power_w),
            sm_clock_hz=self._ask("clock", self._sm_clock_hz),
            utilization=self._ask("utilization", self._utilization),
        )

    def _ask(self, what: str, question: Callable[[], Any]) -> Any:
        if what in self.missing:
            return None
        try:
            return question()
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) == self._nvml.NVML_ERROR_GPU_IS_LOST:
                raise CardLostError("the card was lost while it was watched") from None
            self.missing[what] = str(error)
        except (AttributeError, TypeError):  # pynvml or the driver is older than the question
            self.missing[what] = "the driver is too old for this question"
        return None

    def _driver(self) -> str:
        version = self._nvml.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    def _used_bytes(self) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def _power_w(self) -> float:
        return float(self._nvml.nvmlDeviceGetPowerUsage(self._handle)) / 1000  # from milliwatts

    def _sm_clock_hz(self) -> int:
        clock = self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM)
        return int(clock) * 1_000_000  # from MHz

    def _utilization(self) -> float:
        return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100


@contextmanager
def open_card(index: int, asking: str = ASKING, remedy: str = REMEDY) -> Iterator[Card]:
    """The visible card of that index; ``asking`` and ``remedy`` are for messages.

    Raises:
        UsageError: no NVML, no driver, no such card, or one that is split by MIG: the driver
            tells of the whole card only.
    """
    with driver(asking, remedy) as nvml:
        handles = visible(nvml)
        if index >= len(handles):
            raise UsageError(f"{asking}: the driver sees no GPU {index}; {remedy}")
        if is_split(nvml, handles[index]):
            raise UsageError(f"{asking}: GPU {index} is split by MIG; {remedy}")
        yield Card(nvml, handles[index])
