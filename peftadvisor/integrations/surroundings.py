"""What is around an installation: GPU and driver, folders, environment, as checks.

Paths in the home folder are shown with ``~`` and addresses without passwords, since a bug report
is pasted where others read it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftadvisor.cuda.devices import LiveGpu
from peftadvisor.cuda.devices import machine as driver_and_gpus
from peftadvisor.data.names import one_line
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.integrations.health import Check
from peftadvisor.units import format_bytes

_VARIABLES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "PEFTADVISOR_STORE",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
)
"""What decides on answers or on where they are kept."""


def machine() -> Iterator[Check]:
    """The driver, its GPUs, and what their times rest on."""
    try:
        here = driver_and_gpus("asking the GPU", "go without: advice needs no GPU")
    except PeftAdvisorError as error:
        yield Check(area="machine", name="gpu", state="note", found=str(error))
        return
    yield Check(area="machine", name="driver", found=here.driver)
    if not here.gpus:
        yield Check(area="machine", name="gpu", state="note", found="none is visible here")
    for gpu in dict.fromkeys(here.gpus):
        count = here.gpus.count(gpu)
        yield from _gpu(gpu, count, split=gpu.name in here.split)


def _gpu(gpu: LiveGpu, count: int, *, split: bool) -> Iterator[Check]:
    from peftadvisor.cost_model.rates import device_rates
    from peftadvisor.data.gpus import find_gpu

    found = f"{count} × {one_line(gpu.name)}, {format_bytes(gpu.usable_bytes)}"
    if split:
        yield Check(
            area="machine",
            name="gpu",
            state="note",
            found=f"{found}, split by MIG",
            remedy="name the card and give --gpu-memory",
        )
        return
    try:
        spec = find_gpu(gpu.name)
        rates = device_rates(spec)
    except PeftAdvisorError as error:
        yield Check(area="machine", name="gpu", state="note", found=found, remedy=str(error))
        return
    yield Check(area="machine", name="gpu", found=f"{found} ({spec.id})")
    calibrated = rates.basis == "calibration"
    yield Check(
        area="machine",
        name="calibration",
        state="ok" if calibrated else "note",
        found=f"{spec.id}: {rates.source}",
        remedy="" if calibrated else "peftadvisor calibrate measures this card in two minutes",
    )


def files() -> Iterator[Check]:
    """Folders that are written to, and what lies in them."""
    from peftadvisor.data.calibrations import calibrations_folder
    from peftadvisor.profilers.store import default_store
    from peftadvisor.simulator.library import cache_folder

    yield _folder("cache", cache_folder(), "*.zip", "XDG_CACHE_HOME")
    yield _folder("calibrations", calibrations_folder(), "*.jsonl", "XDG_DATA_HOME")
    store = default_store()
    if "://" not in store:
        yield _folder("runs", Path(store).parent, Path(store).name, "PEFTADVISOR_STORE")


def _folder(name: str, folder: Path, pattern: str, variable: str) -> Check:
    try:
        sizes = [path.stat().st_size for path in folder.glob(pattern)]
        writable = os.access(_existing(folder), os.W_OK)
    except OSError as error:
        sizes, writable = [], False
        found = f"{shown(folder)} cannot be read ({error.strerror})"
    else:
        count = f"{len(sizes)} file{'s' * (len(sizes) != 1)}"
        found = f"{shown(folder)}: {count}, {format_bytes(sum(sizes))}"
    if writable:
        return Check(area="files", name=name, found=found)
    remedy = f"it cannot be written; set {variable} to a place that can"
    return Check(area="files", name=name, state="note", found=found, remedy=remedy)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def environment() -> Iterator[Check]:
    """Variables that are set and matter."""
    for name in _VARIABLES:
        value = os.environ.get(name)
        if value is not None:
            yield Check(area="environment", name=name, found=shown(value), **_meant(value))


def _meant(value: str) -> dict[str, Any]:
    if "expandable_segments:True" not in value.replace(" ", ""):
        return {}
    return {"state": "note", "remedy": "tell predictions of it: --expandable-segments"}


def shown(value: str | Path) -> str:
    """A path or address without the user's name or password in it."""
    text, home = str(value), str(Path.home())
    if home != os.sep and (text == home or text.startswith(home + os.sep)):
        text = "~" + text[len(home) :]
    return one_line(re.sub(r"(?<=://)[^/@]*@", "", text))
