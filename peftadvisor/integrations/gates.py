"""Limits that a check must not exceed, and what an earlier check had said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.checked import Problem
from peftadvisor.profiles import Estimate
from peftadvisor.units import format_bytes, format_seconds

MAX_BASELINE_BYTES = 10 * 2**20
WORSE_MEMORY, WORSE_TIME = 1.01, 1.05
"""How many times more than the baseline's fails the check."""

_REMEDY = "pass what an earlier check of this config wrote with --format json"


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier check predicted for the same config."""

    path: str
    device_peak_bytes: int
    step_s: float


@dataclass(frozen=True, slots=True)
class Gates:
    """What a run may last and cost, and what it must not be worse than; None is no limit."""

    max_hours: float | None = None
    max_usd: float | None = None
    earlier: Earlier | None = None


def missed(gates: Gates, found: Estimate) -> Iterator[Problem]:
    """A problem for every gate that the run does not pass.

    Raises:
        UsageError: a gate asks for what is not known: the size of the job, or a price.
    """
    cost = found.cost
    for rule, took, most, unit in (
        ("max-hours", cost.hours_total, gates.max_hours, "h"),
        ("max-usd", cost.usd_total, gates.max_usd, "USD"),
    ):
        if most is None:
            continue
        if took is None:
            raise UsageError(_unknown(rule, found))
        if took > most:
            message = f"takes {took:.4g} {unit}, and {most:g} {unit} are allowed"
            yield Problem(rule=rule, level="error", message=message, source=f"--{rule}")
    if gates.earlier is not None:
        yield from _worse(gates.earlier, found)


def _unknown(rule: str, found: Estimate) -> str:
    if found.cost.hours_total is None:
        return (
            f"--{rule} needs the size of the job, which the config does not say; add --examples "
            "or --tokens"
        )
    return f"--{rule} needs a price, and there is none for {found.run.gpu.id}"


def _worse(earlier: Earlier, found: Estimate) -> Iterator[Problem]:
    held, step = found.memory.device_peak_bytes, found.time.step_s
    if held > WORSE_MEMORY * earlier.device_peak_bytes:
        then = format_bytes(earlier.device_peak_bytes)
        message = f"needs {format_bytes(held)}, and needed {then} before"
        yield Problem(
            rule="baseline-memory", level="error", message=message, source=one_line(earlier.path)
        )
    if step > WORSE_TIME * earlier.step_s:
        then = format_seconds(earlier.step_s)
        message = f"a step takes {format_seconds(step)}, and took {then} before"
        yield Problem(
            rule="baseline-time", level="error", message=message, source=one_line(earlier.path)
        )


def read_baseline(path: str) -> Mapping[str, Earlier]:
    """What an earlier check said, by the path of each config.

    Raises:
        UsageError: the file is missing, too large, or not what ``check --format json`` writes.
    """
    shown = one_line(path)
    try:
        if Path(path).stat().st_size > MAX_BASELINE_BYTES:
            raise UsageError(f"{shown} is larger than 10 MiB; {_REMEDY}")
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return {each["config"]["path"]: _earlier(path, each) for each in _checks(found)}
    except OSError as error:
        raise UsageError(f"{shown} cannot be read ({error.strerror}); {_REMEDY}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise UsageError(f"{shown} is no check's JSON; {_REMEDY}") from None


def _checks(found: Any) -> list[Any]:
    checks = found.get("checks", [found])
    if not isinstance(checks, list):
        raise TypeError
    return checks


def _earlier(path: str, check: Any) -> Earlier:
    estimate = check["estimate"]
    held, step = estimate["memory"]["device_peak_bytes"], estimate["time"]["step_s"]
    return Earlier(path, int(held), float(step))
