"""Predictions beside measurements as text: all rows, what was left out, each group, each row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from peftadvisor.cost_model.accuracy import (
    GROUPINGS,
    QUANTITIES,
    Accuracy,
    Compared,
    Group,
    Outcome,
    Quantity,
)
from peftadvisor.integrations.validation import Validation
from peftadvisor.report.canvas import Canvas, column, plain
from peftadvisor.report.forms import NAMES, WHAT, share, signed
from peftadvisor.units import format_bytes, format_seconds

# Columns of statistics and the page width from which each is shown.
_STATISTICS = (
    ("rows", 0),
    ("MAPE", 0),
    ("median", 80),
    ("P95", 70),
    ("worst under", 0),
    ("worst over", 0),
    ("in 90 %", 70),
)


def render(validation: Validation, width: int, color: bool) -> str:
    """The whole answer."""
    overall = validation.groups[0]
    canvas = Canvas(width, color)
    canvas.add(_headline(overall, validation.file))
    if overall.used:
        canvas.gap()
        canvas.add(_accuracy_table([overall], width, named=False))
        canvas.add(_verdicts_line(overall))
    if overall.skipped:
        canvas.section("Left out", _reasons_table([overall], named=False))
    for by in GROUPINGS:
        groups = [group for group in validation.groups if group.by == by]
        canvas.section(f"By {NAMES[by]}", _accuracy_table(groups, width, named=True))
        if overall.skipped:
            canvas.section(f"Left out, by {NAMES[by]}", _reasons_table(groups, named=True))
    known = [group for group in validation.groups if group.screening.oom_rows]
    if known:
        canvas.section("Verdicts, where some ran out of memory", _verdicts_table(known))
    if validation.rows:
        canvas.section("Rows", _rows_table([row for row in validation.rows if row.used], width))
        canvas.section("Rows left out", _skipped_table(validation.rows))
    return canvas.text()


def _headline(overall: Group, file: str) -> Text:
    skipped = sum(overall.skipped.values())
    total = overall.used + skipped
    line = f"{file}: {overall.used} of {total} rows used, {skipped} left out"
    return Text(plain(line), style="bold")


def _accuracy_table(groups: Sequence[Group], width: int, *, named: bool) -> Table:
    """A line per quantity; where groups are named, below a line with their name."""
    shown = [head for head, least in _STATISTICS if width >= least]
    table = _table()
    column(table, "", grow=True)
    for head in shown:
        column(table, head.replace("worst ", "worst\n"), right=True)
    if named:
        column(table, "left\nout", right=True)
    for group in groups:
        if named:
            skipped = sum(group.skipped.values())
            blanks = [""] * (len(shown) - 1)
            table.add_row(
                Text(plain(group.name), style="bold"), str(group.used), *blanks, str(skipped)
            )
        for quantity in QUANTITIES:
            found = group.accuracy.get(quantity)
            if found:
                cells = _statistics(found)
                label = f"  {quantity}" if named else WHAT[quantity]
                table.add_row(label, *(cells[head] for head in shown))
    return table


def _statistics(found: Accuracy) -> dict[str, str]:
    return {
        "rows": str(found.rows),
        "MAPE": share(found.mape),
        "median": share(found.median),
        "P95": share(found.p95),
        "worst under": signed(found.worst_under) if found.worst_under else "–",
        "worst over": signed(found.worst_over) if found.worst_over else "–",
        "in 90 %": share(found.coverage),
    }


def _verdicts_line(overall: Group) -> Text:
    screening = overall.screening
    return Text(
        f"Of {screening.oom_rows} that ran out of memory {screening.false_safe} were said to fit "
        f"({share(screening.false_safe_rate)}, false-safe); of {screening.ran_rows} that ran "
        f"{screening.false_alarms} were said not to ({share(screening.false_alarm_rate)}, "
        "false alarms)."
    )


def _verdicts_table(groups: Iterable[Group]) -> Table:
    table = _table()
    column(table, "", grow=True)
    for head in ("ran\nout", "false-\nsafe", "rate", "ran", "false\nalarms", "rate"):
        column(table, head, right=True)
    for group in groups:
        screening = group.screening
        table.add_row(
            Text(plain(group.name)),
            str(screening.oom_rows),
            str(screening.false_safe),
            share(screening.false_safe_rate),
            str(screening.ran_rows),
            str(screening.false_alarms),
            share(screening.false_alarm_rate),
        )
    return table


def _reasons_table(groups: Sequence[Group], *, named: bool) -> Table:
    """Rows left out by reason; where groups are named, each is once."""
    table = _table()
    if named:
        column(table, "", grow=True)
    column(table, "rows", right=True)
    column(table, "reason", grow=True)
    for group in groups:
        names = [group.name] if named else []
        for reason, count in group.skipped.items():
            table.add_row(*(Text(plain(cell)) for cell in (*names, str(count), reason)))
            names = [""] if named else []
    return table


def _rows_table(rows: Sequence[Outcome], width: int) -> Table:
    """A line per measured value, and one per verdict that matters."""
    table = _table()
    column(table, "row", grow=True)
    column(table, "method", grow=True)
    if width >= 100:
        column(table, "GPU", grow=True)
    column(table, "", grow=True)
    for head in ("measured", "predicted", "error"):
        column(table, head, right=True)
    for row in rows:
        names = [row.row_id, row.method, *([row.gpu] if width >= 100 else [])]
        for cells in _lines(row):
            table.add_row(*(Text(plain(cell)) for cell in (*names, *cells)))
    return table


def _lines(row: Outcome) -> Iterable[tuple[str, str, str, str]]:
    for quantity in QUANTITIES:
        if quantity in row.compared:
            yield _line(quantity, row.compared[quantity])
    if row.ran_out or row.verdict == "oom":
        yield "verdict", "ran out" if row.ran_out else "ran", str(row.verdict), ""


def _line(quantity: Quantity, compared: Compared) -> tuple[str, str, str, str]:
    measured, predicted = compared.measured, compared.predicted
    error = signed(compared.error)
    if quantity == "step":
        return "step", format_seconds(measured), format_seconds(predicted), error
    return quantity, format_bytes(int(measured)), format_bytes(int(predicted)), error


def _skipped_table(rows: Sequence[Outcome]) -> Table:
    table = _table()
    column(table, "row", grow=True)
    column(table, "reason", grow=True)
    for row in rows:
        if not row.used:
            table.add_row(Text(plain(row.row_id)), Text(plain(row.reason)))
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
