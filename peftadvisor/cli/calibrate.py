"""``peftadvisor calibrate``: probe a device of this machine, and keep what it can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from peftadvisor.cli import numbers, options
from peftadvisor.cli.output import check_writable, emit, note, progress
from peftadvisor.errors import UnsupportedError
from peftadvisor.report import Listing, Sheet
from peftadvisor.units import format_bytes

if TYPE_CHECKING:
    from peftadvisor.data.calibrations import Calibration, Probe

COLUMNS = ("kind", "dtype", "best", "at", "least", "probes")


@click.command("calibrate")
@click.option(
    "--device", metavar="NAME", help="cpu or cuda:N.  [default: the first GPU, else the CPU]"
)
@click.option(
    "--seconds",
    **numbers.AMOUNT,
    default="120",
    show_default=True,
    help="Time for all probes; short of it, there are fewer and smaller ones.",
)
@click.option(
    "--out",
    metavar="PATH",
    help="Where to keep the calibration.  [default: a file in the user's data folder]",
)
@options.form
def command(device: str | None, seconds: float, out: str | None, fmt: str) -> None:
    """Probe the GPU of this machine, or its CPU, and keep its rates.

    Times matrix products down to the rank of an adapter, copies, elementwise operators,
    reductions, embeddings, attention, 4-bit weights and launches, and asks for the memory outside
    the tensors, in a process of its own. Each probe is saved as soon as it is measured.
    """
    if find_spec("torch") is None:
        raise UnsupportedError(
            "calibrate times torch's operators, and torch is not installed; "
            "pip install 'peftadvisor[profile]'"
        )
    check_writable(out)
    made, path = _calibrated(device, seconds, out)
    emit(sheet(made, path), fmt, None)


def sheet(calibration: Calibration, path: str) -> Sheet:
    """Rates by kind and dtype, what was skipped, and where all of it is kept."""
    head = calibration.head
    versions = ", ".join(f"{name} {is_}" for name, is_ in head.versions.items())
    return Sheet(
        title=f"{head.device}, {len(calibration.probes)} probes",
        facts={
            "Saved": path,
            "With": versions + (f", driver {head.driver}" if head.driver else ""),
            "How": "; ".join(f"{name}: {is_}" for name, is_ in head.facts.items() if is_),
            "Skipped": "\n".join(f"{what}: {why}" for what, why in calibration.skipped.items()),
        },
        table=Listing(kind="rates", columns=COLUMNS, rows=tuple(_rows(calibration.probes))),
        data={"path": path, "calibration": calibration.to_dict()},
    )


def _calibrated(device: str | None, seconds: float, out: str | None) -> tuple[Calibration, str]:
    from peftadvisor.data.calibrations import calibrations_folder
    from peftadvisor.profilers.calibrating import calibrate
    from peftadvisor.profilers.child import ChildDiedError, in_child

    with progress("Calibrating") as say:
        try:
            made, path = in_child(calibrate, device, seconds, out, say=say)
        except (KeyboardInterrupt, ChildDiedError):
            note(f"what was measured so far is kept in {out or calibrations_folder()}")
            raise
    return made, path


def _rows(probes: Iterable[Probe]) -> list[dict[str, Any]]:
    """A row for each kind and dtype that was timed, and one for each size."""

    def key(probe: Probe) -> tuple[str, str]:
        return probe.kind, probe.operator if probe.held_bytes is not None else probe.dtype

    rank = {kind: place for place, kind in enumerate(dict.fromkeys(p.kind for p in probes))}
    ordered = sorted(probes, key=lambda p: (rank[p.kind], key(p)))
    return [_row([*group]) for _, group in groupby(ordered, key)]


def _row(group: list[Probe]) -> dict[str, Any]:
    what = _unit(group[0])
    measure, form, more_is_better = _UNITS[what]
    ordered = sorted(group, key=measure, reverse=more_is_better)
    best, least = ordered[0], ordered[-1]
    return {
        "kind": best.kind.replace("_", " "),
        "dtype": best.dtype or None,
        "best": form(measure(best)),
        "at": _where(best),
        "least": form(measure(least)) if len(group) > 1 else None,
        "probes": len(group),
    }


def _where(probe: Probe) -> str:
    shape = " × ".join(map(str, probe.shape))
    named = probe.operator if probe.kind in _SEVERAL or not shape else ""
    return " ".join(part for part in (named, shape) if part)


_SEVERAL = ("elementwise", "reduction")
"""Kinds with several operators that have shapes."""


def _unit(probe: Probe) -> str:
    if probe.held_bytes is not None:
        return "size"
    if probe.flops_per_s:
        return "flops"
    return "bytes" if probe.bytes_per_s else "seconds"


_UNITS: Mapping[str, tuple[Callable[[Probe], float], Callable[[float], str], bool]] = {
    "size": (lambda p: p.held_bytes or 0, lambda x: format_bytes(int(x)), True),
    "flops": (lambda p: p.flops_per_s or 0.0, lambda x: f"{x / 1e12:.3g} TFLOP/s", True),
    "bytes": (lambda p: p.bytes_per_s or 0.0, lambda x: f"{x / 1e9:.3g} GB/s", True),
    "seconds": (lambda p: p.seconds or 0.0, lambda x: f"{x * 1e6:.3g} µs", False),
}
"""What is shown of a probe: its measure, how it is written, and whether more of it is better."""
