"""How far baselines and other estimators are from the published rows; a Markdown table.

    python benchmarks/baseline_errors.py MEASUREMENTS.csv

Each predicted peak is held against that of the measured peaks which is nearest to what the
estimator says it predicts (``CLAIMS``). Rows are those that ``peftadvisor validate`` reads as
runs, with the batch and the lengths that our own prediction gets.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from baselines import bucket_bytes, roofline_seconds
from rivals import VERSIONS, read_predictions, read_runs

from peftadvisor.advisor.estimating import with_implied_quantization
from peftadvisor.cost_model.accuracy import (
    Accuracy,
    Compared,
    Outcome,
    Quantity,
    Screening,
    accuracy,
    screening,
)
from peftadvisor.data.measurements import Measurement
from peftadvisor.errors import UsageError
from peftadvisor.integrations.published import Published
from peftadvisor.methods import find_method
from peftadvisor.methods.sites import Layout, layout_of
from peftadvisor.specs import ModelSpec, RunSpec, TrainingSpec, Verdict

BUCKET, ROOFLINE = "bucket formula", "spec roofline"
CLAIMS: Mapping[str, tuple[Quantity, ...]] = {
    # weights, states and activations: tensors alone
    BUCKET: ("allocated", "reserved"),
    ROOFLINE: (),
    # its process tier, context included, against the card's usable memory
    "fitcheck-llm": ("device", "reserved"),
    # "process torch peak reserved"; its sum holds a context, so else the device's
    "canifinetune": ("reserved", "device"),
    # its calibration asks for the peak of nvidia-smi
    "ftuneai": ("device", "reserved"),
    # its sum holds a context and is held against the card; its calibration, against allocated
    "fitscout": ("device", "reserved"),
}
"""The peak that a prediction is held against: the first of these that a row has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What one estimator says of one row; None where it says nothing."""

    memory: float | None = None
    time: float | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineErrors:
    """One estimator over all rows.

    ``compared`` is by kind (``memory`` of whatever peak, each peak, ``step``) and row;
    ``accuracy`` are its statistics, whose coverage means nothing here: points have no interval.
    ``answered`` counts rows with any prediction.
    """

    name: str
    claim: tuple[Quantity, ...]
    rows: int
    answered: int
    compared: Mapping[str, Mapping[str, Compared]] = field(repr=False)
    screening: Screening

    @property
    def accuracy(self) -> dict[str, Accuracy]:
        """Errors by kind, of those kinds that were compared."""
        return {kind: accuracy(list(rows.values())) for kind, rows in self.compared.items() if rows}


def baseline_errors(measurements: Path) -> tuple[BaselineErrors, ...]:
    """Both formulas, then the other estimators as ``docs/accuracy/rivals.csv`` has them."""
    runs = read_runs(measurements)
    said: dict[str, dict[str, Predicted]] = {
        BUCKET: _by_formula(runs, _bucket),
        ROOFLINE: _by_formula(runs, _roofline),
        **{f"{name} {version}": _by_rival(name, runs) for name, version in VERSIONS.items()},
    }
    return tuple(_errors(name, runs, found) for name, found in said.items())


def trained_parameters(run: RunSpec) -> int:
    """By the method's formula."""
    method = find_method(run.method.name)
    return method.trainable(_layout(run.model), method.settings(run.method))


def table(results: Sequence[BaselineErrors]) -> Iterator[str]:
    """A row per estimator and kind, then their verdicts."""
    yield "| estimator | predicts | rows | MAPE | median | P95 | worst under | worst over |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        for kind, found in result.accuracy.items():
            shares = (found.mape, found.median, found.p95)
            worst = (found.worst_under, found.worst_over)
            cells = [*(f"{x:.1%}" for x in shares), *(f"{x:+.1%}" for x in worst)]
            yield f"| {result.name} | {kind} | {found.rows} | {' | '.join(cells)} |"
    yield ""
    yield "| estimator | rows answered | said to fit, ran out | said not to fit, ran |"
    yield "|---|---|---|---|"
    for result in results:
        s = result.screening
        if s.oom_rows + s.ran_rows:
            yield (
                f"| {result.name} | {result.answered} of {result.rows} "
                f"| {s.false_safe} of {s.oom_rows} | {s.false_alarms} of {s.ran_rows} |"
            )


def _errors(
    name: str, runs: Sequence[tuple[Measurement, Published]], said: Mapping[str, Predicted]
) -> BaselineErrors:
    claim = next(claim for start, claim in CLAIMS.items() if name.startswith(start))
    kinds = ("memory", *claim) if claim else ()
    compared: dict[str, dict[str, Compared]] = {kind: {} for kind in (*kinds, "step")}
    outcomes = []
    for row, published in runs:
        predicted, measured = said[row.row_id], published.measured
        held = next((quantity for quantity in claim if quantity in measured), None)
        if predicted.memory is not None and held:
            for kind in ("memory", held):
                compared[kind][row.row_id] = _point(measured[held], predicted.memory)
        if predicted.time is not None and "step" in measured:
            compared["step"][row.row_id] = _point(measured["step"], predicted.time)
        outcomes.append(
            Outcome(
                row_id=row.row_id,
                source=row.source_id,
                method=published.run.method.name,
                gpu=published.run.gpu.id,
                ran_out=published.ran_out,
                verdict=predicted.verdict,
            )
        )
    return BaselineErrors(
        name=name,
        claim=claim,
        rows=len(runs),
        answered=sum(found != Predicted() for found in said.values()),
        compared=compared,
        screening=screening(outcomes),
    )


def _by_formula(
    runs: Sequence[tuple[Measurement, Published]], formula: Callable[[Published], Predicted]
) -> dict[str, Predicted]:
    found: dict[str, Predicted] = {}
    for row, published in runs:
        try:
            found[row.row_id] = formula(published)
        except UsageError:
            found[row.row_id] = Predicted()
    return found


def _bucket(published: Published) -> Predicted:
    run = with_implied_quantization(published.run)
    memory = bucket_bytes(run, trained_parameters(run))
    return Predicted(memory=memory, verdict=_by_size(memory, run))


def _roofline(published: Published) -> Predicted:
    run = with_implied_quantization(published.timed)
    return Predicted(time=roofline_seconds(run, trained_parameters(run)))


def _by_rival(name: str, runs: Sequence[tuple[Measurement, Published]]) -> dict[str, Predicted]:
    lines = {
        (line["row_id"], line["kind"]): line
        for line in read_predictions()
        if (line["rival"], line["version"]) == (name, VERSIONS[name])
    }
    found: dict[str, Predicted] = {}
    for row, published in runs:
        memory = lines.get((row.row_id, "memory"), {"predicted": "", "verdict": ""})
        time = lines.get((row.row_id, "time"), {"predicted": ""})
        size = float(memory["predicted"]) if memory["predicted"] else None
        own: dict[str, Verdict] = {"fits": "fits", "tight": "tight", "oom": "oom"}
        by_size = None if size is None else _by_size(size, published.run)
        found[row.row_id] = Predicted(
            memory=size,
            time=float(time["predicted"]) if time["predicted"] else None,
            verdict=own.get(memory["verdict"], by_size),
        )
    return found


def _by_size(memory: float, run: RunSpec) -> Verdict:
    """For those that give a size and no verdict."""
    return "fits" if memory <= run.gpu.usable_bytes else "oom"


def _point(measured: float, predicted: float) -> Compared:
    return Compared(measured=measured, low=predicted, predicted=predicted, high=predicted)


@cache
def _layout(model: ModelSpec) -> Layout:
    from peftadvisor.simulator.build import build_model

    return layout_of(build_model(model, TrainingSpec()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", type=Path)
    for line in table(baseline_errors(parser.parse_args().measurements)):
        print(line)


if __name__ == "__main__":
    main()
