"""One calibration from start to end: every probe in its turn, saved as soon as it is measured."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import torch

from peftadvisor.data.calibrations import (
    Calibration,
    CalibrationFile,
    Head,
    calibration_path,
    new_calibration,
    read_calibration,
)
from peftadvisor.errors import UnsupportedError
from peftadvisor.profilers.probes import PROBES, NoRoomError, Probing, Work
from peftadvisor.profilers.provenance import provenance
from peftadvisor.profilers.stopwatch import Site, open_site

TIME_SHARE = 0.9
"""Of the time given; the rest is for starting a process, and for probes that take a bit longer."""

Say = Callable[[str], None]
OpenSite = Callable[[str | None], AbstractContextManager[Site]]
Probes = Sequence[tuple[str, Work]]


def calibrate(
    device: str | None, seconds: float, out: str | None, *, say: Say, site_of: OpenSite = open_site
) -> tuple[Calibration, str]:
    """Probe a device for so many seconds; what was measured, and the file it is in.

    Raises:
        UsageError: there is no such device, or the file cannot be written.
        SystemExit: nobody listens any more, since the parent process was interrupted.
    """
    with site_of(device) as site:
        head = _head(site)
        path = Path(out) if out else calibration_path(head)
        try:
            with new_calibration(path, head) as file:
                run_probes(PROBES, site, seconds * TIME_SHARE, file, say)
        except BrokenPipeError:
            raise SystemExit(1) from None
    return read_calibration(path), str(path)


def run_probes(probes: Probes, site: Site, seconds: float, file: CalibrationFile, say: Say) -> None:
    """Each probe gets an even share of the time that is left when its turn comes.

    What a device or an installation does not have, and what there was no room for, is written to
    the file with its reason. Other errors of the device end the work.
    """
    probing, until = Probing(site), site.now() + seconds
    short: Counter[str] = Counter()
    refused: set[str] = set()
    for number, (name, work) in enumerate(probes):
        if name in refused:
            continue
        say(f"Calibrating {site.bench.name}: {name} ({number + 1} of {len(probes)})")
        left = until - site.now()
        try:
            if left <= 0:
                raise NoRoomError
            for probe in work(probing, left / (len(probes) - number)):
                file.add(probe)
        except NoRoomError:
            short[name.partition(",")[0]] += 1
        except torch.AcceleratorError:  # after which the device answers nothing any more
            raise
        except (ImportError, RuntimeError, UnsupportedError) as error:
            file.skip(name, _reason(error))
            if not isinstance(error, torch.OutOfMemoryError):  # a smaller shape may still fit
                refused.add(name)
    if short:
        counts = ", ".join(f"{count} of {kind}" for kind, count in short.items())
        file.skip("for want of time or memory", f"{counts}; give more --seconds")


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return " ".join(str(error).split())[:120] or type(error).__name__


def _head(site: Site) -> Head:
    made = dict(provenance("measure", "").versions)
    if site.cuda is not None and torch.version.cuda:
        made["cuda"] = torch.version.cuda
    return Head(
        device=site.bench.name,
        device_kind="cpu" if site.cuda is None else "cuda",
        versions=made,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        driver=site.card.driver_version if site.card else "",
        facts={
            "machine": platform.machine(),
            "processor": platform.processor(),
            "threads": str(torch.get_num_threads()),
            "fp32 products": torch.get_float32_matmul_precision(),
            "caches": f"swept by a write of {site.sweep_bytes()} bytes before every timed call",
        },
    )
