"""Calibrations: what a device was measured to do, and the files they are kept in. No torch here.

A file is JSON lines: a head that says what was measured with what, then one line per probe,
written as soon as it is measured, then an end. A file without its end is a partial calibration.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from peftadvisor.data.calibration_lines import Checked, checked_lines
from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError

FORMAT = 1
DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One thing measured: ``seconds`` of one call, or ``held_bytes`` that stay held.

    ``seconds`` is the median of ``repeats`` calls, ``low_s`` and ``high_s`` are the quartiles.
    ``flops`` (1 MAC = 2 FLOPs) are those of matrix products, ``moved_bytes`` every operand read
    once and every result written once; both are of one call.
    """

    kind: str
    operator: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    seconds: float | None = None
    low_s: float | None = None
    high_s: float | None = None
    flops: int = 0
    moved_bytes: int = 0
    repeats: int = 0
    held_bytes: int | None = None

    @property
    def flops_per_s(self) -> float | None:
        """Median rate; None where nothing was multiplied, or not timed."""
        return self.flops / self.seconds if self.flops and self.seconds else None

    @property
    def bytes_per_s(self) -> float | None:
        """Median rate; None where nothing was moved, or not timed."""
        return self.moved_bytes / self.seconds if self.moved_bytes and self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape as a list."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a calibration was made on and with.

    ``device`` is the name that profiles of it carry, ``date`` is UTC in ISO form, ``facts`` say
    how it was measured.
    """

    device: str
    device_kind: DeviceKind
    versions: Mapping[str, str] = field(hash=False)
    date: str
    driver: str = ""
    facts: Mapping[str, str] = field(hash=False, default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the format of the file."""
        return {"format": FORMAT, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All that was measured of one device; not ``complete`` where the work was interrupted.

    ``skipped`` says what was not measured, and why.
    """

    head: Head
    probes: tuple[Probe, ...]
    skipped: Mapping[str, str] = field(hash=False, default_factory=dict)
    complete: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **self.head.to_dict(),
            "complete": self.complete,
            "probes": [probe.to_dict() for probe in self.probes],
            "skipped": dict(self.skipped),
        }


class CalibrationFile:
    """A calibration that is being written: every line is handed to the system at once."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file

    def add(self, probe: Probe) -> None:
        """Append what was measured."""
        self.line({"probe": probe.to_dict()})

    def skip(self, what: str, why: str) -> None:
        """Append what was not measured."""
        self.line({"skipped": {"what": what, "why": why}})

    def line(self, value: Mapping[str, Any]) -> None:
        """Append one line of JSON, and flush.

        Raises:
            UsageError: the disk is full, or the file gone.
        """
        try:
            self._file.write(json.dumps(value, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise _refusal(self._path, error) from None


@contextmanager
def new_calibration(path: Path, head: Head) -> Iterator[CalibrationFile]:
    """A new file, which gets its end if nothing is raised inside; what is there is replaced.

    Raises:
        UsageError: the file cannot be written, now or later.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise _refusal(path, error) from None
    with file:
        made = CalibrationFile(path, file)
        made.line(head.to_dict())
        yield made
        made.line({"end": True})


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file; a last line that was cut off is left out.

    Raises:
        UsageError: no such file, not a calibration, damaged, or of a newer version.
    """
    lines = checked_lines(path)
    head = next(lines, None)
    if head is None:
        raise UsageError(f"{one_line(str(path))} is empty; run: peftadvisor calibrate")
    made = _head(head)
    probes, skipped, complete = [], {}, False
    for line in lines:
        if "probe" in line:
            probes.append(_probe(line.inner("probe")))
        elif "skipped" in line:
            said = line.inner("skipped")
            skipped[said.text("what")] = said.text("why")
        elif "end" in line:
            complete = True
        else:
            raise line.error("is neither probe, skipped nor end")
    return Calibration(head=made, probes=tuple(probes), skipped=skipped, complete=complete)


def latest_calibration(device: str, folder: Path | None = None) -> Calibration | None:
    """The newest calibration of that device that holds a probe, complete or not; None without.

    Raises:
        UsageError: a file that would be it is damaged.
    """
    home = folder or calibrations_folder()
    for path in sorted(home.glob(f"{_slug(device)}-[0-9]*.jsonl"), reverse=True):
        made = read_calibration(path)
        if made.probes and made.head.device == device:
            return made
    return None


def calibrations_folder() -> Path:
    """Where calibrations are kept: a folder beside the default store of runs."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "peftadvisor" / "calibrations"


def calibration_path(head: Head, folder: Path | None = None) -> Path:
    """The file of that device and date, such as ``nvidia-l40s-20261124T101500.jsonl``."""
    date = re.sub(r"[^0-9T]", "", head.date.partition("+")[0])
    return (folder or calibrations_folder()) / f"{_slug(head.device)}-{date}.jsonl"


def _refusal(path: Path, error: OSError) -> UsageError:
    shown = one_line(str(path))
    return UsageError(
        f"the calibration {shown} cannot be written ({error.strerror}); name another by --out"
    )


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "device"


def _head(line: Checked) -> Head:
    version = line.whole("format")
    if version > FORMAT:
        raise line.error(
            f"key 'format' is {version}, of a newer peftadvisor (here {FORMAT})",
            "upgrade, or run: peftadvisor calibrate",
        )
    kind = line.text("device_kind")
    if kind not in get_args(DeviceKind):
        raise line.error(f"key 'device_kind' is '{one_line(kind)}', not cpu or cuda")
    return Head(
        device=line.text("device"),
        device_kind="cuda" if kind == "cuda" else "cpu",
        versions=line.texts("versions"),
        date=line.text("date"),
        driver=line.text("driver", may_be_blank=True),
        facts=line.texts("facts"),
    )


def _probe(line: Checked) -> Probe:
    return Probe(
        kind=line.text("kind"),
        operator=line.text("operator"),
        shape=line.wholes("shape"),
        dtype=line.text("dtype", may_be_blank=True),
        seconds=line.number_or_none("seconds"),
        low_s=line.number_or_none("low_s"),
        high_s=line.number_or_none("high_s"),
        flops=line.whole("flops"),
        moved_bytes=line.whole("moved_bytes"),
        repeats=line.whole("repeats"),
        held_bytes=line.whole_or_none("held_bytes"),
    )
