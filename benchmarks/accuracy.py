"""Hold the predictions against published runs: docs/accuracy.md, the README's table, the scores.

    python benchmarks/accuracy.py MEASUREMENTS.csv [--check]

Rows of fidelity A in the columns of ``peftadvisor validate``. Nothing of the memory model is fitted
on them, so that the scores of all (``memory_errors.csv``) are those of sources left out; intervals
and verdicts in the tables are each by the scores of the other sources. Step times are by constants
fitted without the row's source, or by those of other GPUs where it is the only one.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from accuracy_tables import Study, study_of
from baseline_errors import BaselineErrors, baseline_errors

from peftadvisor.cost_model.accuracy import QUANTITIES, accuracy
from peftadvisor.data.measurements import read_measurements
from peftadvisor.data.memory_errors import COLUMNS, TABLE
from peftadvisor.data.tables import catalog_path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "accuracy.md"
FIGURE = ROOT / "docs" / "img" / "reliability.svg"
README = ROOT / "README.md"


def write_scores(study: Study) -> None:
    """The bundled table of misses."""
    with catalog_path(TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (miss.row_id, miss.source, miss.kind, miss.measured_bytes, miss.predicted_bytes)
            for miss in study.misses
        )


def write_readme(study: Study) -> None:
    """The README's table, between its marks."""
    block = "\n".join(study.summary()) + "\n"
    marks = r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)"
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(marks, lambda m: m[1] + block + m[2], text, flags=re.DOTALL), encoding="utf-8"
    )


def rivals(study: Study, others: Sequence[BaselineErrors]) -> Iterator[str]:
    """Baselines and other estimators, each beside ours on the rows that it answers."""
    ours = {o.row_id: o.compared for o in study.used}
    yield "## Beside others"
    yield ""
    yield (
        "Mean absolute error, and ours on the same rows. Formulas are in "
        "`benchmarks/baselines.py`; the packages were asked in environments of their own "
        "(`benchmarks/rivals.py`), with the same batch and lengths, and are held against the peak "
        "that they say they predict. One GPU only."
    )
    yield ""
    yield "| estimator | what | rows | theirs | ours |"
    yield "|---|---|---|---|---|"
    for other in others:
        for kind in QUANTITIES:
            theirs = other.compared.get(kind, {})
            both = {row: c for row, c in theirs.items() if kind in ours.get(row, {})}
            if both:
                mape = accuracy(list(both.values())).mape
                own = accuracy([ours[row][kind] for row in both]).mape
                yield f"| {other.name} | {kind} | {len(both)} | {mape:.1%} | {own:.1%} |"
    yield ""
    yield "| estimator | rows | said to fit, ran out | said not to fit, ran |"
    yield "|---|---|---|---|"
    for other in others:
        s = other.screening
        told = f"{s.false_safe} of {s.oom_rows} | {s.false_alarms} of {s.ran_rows}"
        if s.oom_rows + s.ran_rows:
            yield f"| {other.name} | {other.answered} of {other.rows} | {told} |"
    yield ""


def main() -> None:
    """Predict all rows, and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--check", action="store_true", help="print the README's table only")
    given = parser.parse_args()
    rows = [row for row in read_measurements(given.measurements) if row.fidelity == "A"]
    study = study_of(rows)
    print("\n".join(study.summary()))
    if given.check:
        return
    write_scores(study)
    write_readme(study)
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(study.reliability_figure(), encoding="utf-8")
    beside = rivals(study, baseline_errors(given.measurements))
    PAGE.write_text("\n".join(study.page(beside)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
