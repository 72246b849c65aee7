"""Published measurements of real runs, to hold predictions against (measured/README.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.data.tables import read_table
from peftadvisor.specs import MethodSpec

L40S = Path(__file__).resolve().parent / "measured" / "peft_metamath_l40s.csv"
L40S_LONGEST_BATCH_TOKENS = 672
"""Length of the longest padded batch, read off all rows together; the source does not say it."""

LEFT_ON_CPU_BYTES = {"boft": 2 * 28 * 3072**2 * 4}
"""What PEFT left on the CPU in these runs and the simulation puts on the GPU.

BOFT's permutation matrices (fp32, as wide as the hidden states, one for each of the 56 adapted
layers) are buffers made after the base model was loaded to the GPU, and PEFT moves parameters
only. ``model.to(device)``, as the Trainer calls it, would bring them over.
"""

_COLUMNS = (
    "row_id",
    "source",
    "commit",
    "model",
    "method",
    "settings",
    "peak_reserved_bytes",
    "trainable_params",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """One published run: what was run, what was trained, its peak, and where it is published."""

    row_id: str
    model: str
    method: MethodSpec
    micro_batch_size: int
    peak_reserved_bytes: int
    trained: int
    source: str


def l40s_runs() -> tuple[MeasuredRun, ...]:
    """Runs of the PEFT project on an L40S; those that differ in learning rate alone count once.

    Raises:
        UsageError: the bundled table is damaged.
    """
    rows = [_run(row.cells) for row in read_table(L40S, _COLUMNS)]
    return tuple({run.method: run for run in rows}.values())


def _run(row: Mapping[str, str]) -> MeasuredRun:
    settings: dict[str, Any] = json.loads(row["settings"])
    hashable = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return MeasuredRun(
        row_id=row["row_id"],
        model=row["model"],
        method=MethodSpec(name=row["method"]).with_settings(**hashable),
        micro_batch_size=int(row["micro_batch_size"]),
        peak_reserved_bytes=int(row["peak_reserved_bytes"]),
        trained=int(row["trainable_params"]),
        source=f"{row['source']} @ {row['commit'][:10]}",
    )


COUNTS = Path(__file__).resolve().parent / "measured" / "logged_parameter_counts.csv"
_COUNT_COLUMNS = ("model", "method", "logged_as", "printed", "trained", "base", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCount:
    """Trained parameters that a published run logged, printed to seven digits.

    ``base`` are the model's own parameters, ``logged_as`` the method's name there.
    """

    model: str
    method: str
    logged_as: str
    printed: str
    trained: int
    base: int


def logged_counts() -> tuple[LoggedCount, ...]:
    """The 45 logged counts of fifteen methods on T5-large, T5-3B and T5-11B.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return tuple(
        LoggedCount(
            model=row.cells["model"],
            method=row.cells["method"],
            logged_as=row.cells["logged_as"],
            printed=row.cells["printed"],
            trained=row.integer("trained"),
            base=row.integer("base"),
        )
        for row in read_table(COUNTS, _COUNT_COLUMNS)
    )


INFERENCE = Path(__file__).resolve().parent / "measured" / "logged_inference_peaks.csv"
_INFERENCE_COLUMNS = (
    "model",
    "method",
    "logged_as",
    "dataset",
    "batch",
    "forward_mib",
    "generate_mib",
    "weights_mib",
    "source",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedInference:
    """Peaks of a published evaluation: until after forward passes, and with generation.

    Both count from the start of the evaluation, weights included, in MiB as they were logged;
    ``weights_mib`` is what the weights are in bf16.
    """

    model: str
    method: str
    logged_as: str
    dataset: str
    batch: int
    forward_mib: float
    generate_mib: float
    weights_mib: float


def logged_inference() -> tuple[LoggedInference, ...]:
    """The 20 logged inference peaks of T5 with PEFT methods.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return tuple(
        LoggedInference(
            model=row.cells["model"],
            method=row.cells["method"],
            logged_as=row.cells["logged_as"],
            dataset=row.cells["dataset"],
            batch=row.integer("batch"),
            forward_mib=float(row.cells["forward_mib"]),
            generate_mib=float(row.cells["generate_mib"]),
            weights_mib=float(row.cells["weights_mib"]),
        )
        for row in read_table(INFERENCE, _INFERENCE_COLUMNS)
    )
