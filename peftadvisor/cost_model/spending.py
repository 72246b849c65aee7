"""What one optimizer step is spent on: classes of kernels, and single ones against the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from peftadvisor.cost_model.kernel_classes import Class, tabulate
from peftadvisor.cost_model.kernel_time import kernel_seconds
from peftadvisor.cost_model.rates import device_rates
from peftadvisor.cost_model.time import step_parts
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import RunSpec

MOST = 40
"""Kernels told of one by one: those on which most is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpent:
    """Calls of one kernel with the same shapes in one phase of a step.

    ``flops`` and ``moved_bytes`` are of one call, ``busy_s`` of all calls.
    """

    name: str
    phase: str
    kind: str
    calls: int
    flops: float
    moved_bytes: float
    busy_s: float
    computes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Seconds of one step on one card by class and by what bounds them; its costliest kernels.

    ``peak_flops_per_s`` is the card's dense peak at the run's dtype.
    """

    by_class: Mapping[str, float]
    by_bound: Mapping[str, float]
    kernels: tuple[KernelSpent, ...]
    peak_flops_per_s: float | None
    bandwidth_bytes_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def spending(simulated: Simulated, run: RunSpec) -> Spending:
    """What a step of this run is spent on; what several cards exchange is not in it."""
    uses, training, rates = simulated.kernel_uses(), run.training, device_rates(run.gpu)
    parts = step_parts(uses, training, run.gpu, rates)
    kernels = tabulate(uses)
    busy, computes = kernel_seconds(kernels, run.gpu, rates)
    update = kernels.phase == Phase.OPTIMIZER
    calls = kernels.count * np.where(update, 1, training.gradient_accumulation_steps)
    most = np.argsort(-busy * calls, kind="stable")[:MOST]
    return Spending(
        by_class=dict(parts.by_class),
        by_bound=dict(parts.by_bound),
        kernels=tuple(
            KernelSpent(
                name=uses[use].name,
                phase=Phase(int(kernels.phase[use])).name.lower(),
                kind=Class(int(kernels.kind[use])).name.lower(),
                calls=int(calls[use]),
                flops=float(kernels.flops[use]),
                moved_bytes=float(kernels.bytes[use]),
                busy_s=float(busy[use] * calls[use]),
                computes=bool(computes[use]),
            )
            for use in most
        ),
        peak_flops_per_s=run.gpu.peak_flops_per_s.get(training.dtype),
        bandwidth_bytes_per_s=float(run.gpu.memory_bandwidth_bytes_per_s),
    )
