"""Predictions held against measurement rows: every row ends compared, or left out for a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftadvisor.advisor.validating import Prediction, predict_each
from peftadvisor.cost_model.accuracy import (
    Compared,
    Group,
    Outcome,
    Quantity,
    summarize,
)
from peftadvisor.data.measurements import Measurement
from peftadvisor.integrations.published import Published, Skipped, as_run, gpu_name, method_name
from peftadvisor.profiles import SCHEMA_VERSION, Memory
from peftadvisor.simulator.obtain import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The statistics of each group of rows, and the rows themselves where they are to be shown."""

    file: str
    groups: tuple[Group, ...]
    rows: tuple[Outcome, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "file": self.file,
            "groups": [group.to_dict() for group in self.groups],
            "rows": [_plain(row) for row in self.rows],
        }


def validate(
    rows: Sequence[Measurement], progress: Progress, *, file: str = "", keep_rows: bool = False
) -> Validation:
    """Predict what the rows measured, and say how far off the predictions are."""
    described = [as_run(row) for row in rows]
    runs = [run for d in described if isinstance(d, Published) for run in (d.run, d.timed)]
    predicted = predict_each(runs, progress)
    outcomes = tuple(
        _outcome(row, Skipped(d.reason))
        if isinstance(d, Skipped)
        else _outcome(row, d, predicted[d.run], predicted[d.timed])
        for row, d in zip(rows, described, strict=True)
    )
    return Validation(file=file, groups=summarize(outcomes), rows=outcomes if keep_rows else ())


def _outcome(row: Measurement, described: Published | Skipped, *predictions: Prediction) -> Outcome:
    named = Outcome(
        row_id=row.row_id,
        source=row.source_id or "not stated",
        method=method_name(row),
        gpu=gpu_name(row),
    )
    if isinstance(described, Skipped):
        return dataclasses.replace(named, reason=described.reason)
    run, timed = predictions
    if isinstance(run, str) or isinstance(timed, str):
        return dataclasses.replace(named, reason=run if isinstance(run, str) else str(timed))
    measured = described.measured
    compared: dict[Quantity, Compared] = {
        quantity: _memory(quantity, measured[quantity], run.memory, described.left_on_cpu_bytes)
        for quantity in measured
        if quantity != "step"
    }
    if "step" in measured:
        time = timed.time
        compared["step"] = Compared(
            measured=measured["step"], low=time.low_s, predicted=time.step_s, high=time.high_s
        )
    return dataclasses.replace(
        named, compared=compared, ran_out=described.ran_out, verdict=run.verdict
    )


def _memory(quantity: Quantity, measured: float, memory: Memory, left_out: int) -> Compared:
    """One peak; the interval is that of the device peak, moved by as much as this peak is lower."""
    peak: int = getattr(memory, f"{quantity}_peak_bytes")
    lower = memory.device_peak_bytes - peak + left_out
    return Compared(
        measured=measured,
        low=memory.low_bytes - lower,
        predicted=peak - left_out,
        high=memory.high_bytes - lower,
    )


def _plain(row: Outcome) -> dict[str, Any]:
    compared = {
        quantity: {**dataclasses.asdict(c), "error": c.error}
        for quantity, c in row.compared.items()
    }
    return {
        "row_id": row.row_id,
        "source": row.source,
        "method": row.method,
        "gpu": row.gpu,
        "skipped": row.reason or None,
        "ran_out": row.ran_out,
        "verdict": row.verdict,
        "compared": compared,
    }
