"""The constants of a device, from the best source there is.

A calibration of that very device, kept on this machine; else constants fitted on published runs
on such a GPU; else the spec sheet with the efficiencies of other GPUs.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from peftadvisor.cost_model.probed import rates_of_probes
from peftadvisor.data.calibrations import Calibration, calibrations_folder, latest_calibration
from peftadvisor.data.gpus import gpu_aliases
from peftadvisor.data.rates import DeviceRates, bundled_rates
from peftadvisor.specs import GpuSpec


def device_rates(gpu: GpuSpec) -> DeviceRates:
    """The constants that are trusted most.

    Raises:
        UsageError: a calibration on file is damaged.
    """
    return _rates(gpu, calibrations_folder())


@lru_cache(maxsize=256)
def _rates(gpu: GpuSpec, folder: Path) -> DeviceRates:
    base = bundled_rates(gpu.id)
    kept = _calibration(gpu, folder)
    return rates_of_probes(kept, gpu, base) if kept else base


def _calibration(gpu: GpuSpec, folder: Path) -> Calibration | None:
    """The newest calibration under any name that drivers give this GPU."""
    if not folder.is_dir():
        return None
    names = (gpu.name, *gpu_aliases().get(gpu.id, ()))
    found = [kept for name in names if (kept := latest_calibration(name, folder))]
    return max(found, key=lambda kept: kept.head.date, default=None)
