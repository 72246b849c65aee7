"""Predictions beside measurements as a page: its tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peftadvisor.cost_model.accuracy import (
    GROUPINGS,
    QUANTITIES,
    Accuracy,
    Compared,
    Group,
    Outcome,
    Quantity,
    histogram,
)
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import validation_charts
from peftadvisor.report.charts import Frame
from peftadvisor.report.drawing import Drawing
from peftadvisor.report.forms import NAMES, WHAT, share, signed
from peftadvisor.report.grid import Cells, Column, Grid, Section, plain_grid
from peftadvisor.units import GIB, format_bytes, format_seconds

_STATISTICS = ("Rows", "MAPE", "Median", "P95", "Worst under", "Worst over", "In 90 %")
_EDGES = tuple(number / 20 for number in range(-10, 11))
"""Of the error distribution: steps of 5 % up to half as much and one and a half times as much."""


def parts(validation: Validation) -> Mapping[str, Any]:
    """What the template is filled with."""
    overall = validation.groups[0]
    used = [row for row in validation.rows if row.used]
    return {
        "title": "Predictions against measurements",
        "file": validation.file,
        "used": overall.used,
        "skipped": sum(overall.skipped.values()),
        "numbers": _tiles(overall),
        "overall": _overall(overall),
        "figures": [
            *_scatter("memory", "Peak memory", "GiB", QUANTITIES[:3], used, overall),
            *_scatter("time", "Step time", "seconds", QUANTITIES[3:], used, overall),
            *(_histogram(quantity, used, overall) for quantity in overall.accuracy if used),
        ],
        "screening": overall.screening,
        "verdicts": _verdicts([g for g in validation.groups if g.screening.oom_rows]),
        "reasons": _reasons(overall),
        "groups": [_grouped(by, validation.groups) for by in GROUPINGS],
        "reasons_by": [_reasons_by(by, validation.groups) for by in GROUPINGS],
        "rows": _rows(used),
        "rows_left_out": _left_out(validation.rows),
    }


def _tiles(overall: Group) -> Sequence[tuple[str, str, str]]:
    """The numbers to see first: name, value, what it means here."""
    screening = overall.screening
    tiles = [
        (WHAT[quantity].capitalize(), share(found.mape), f"mean error of {_rows_of(found.rows)}")
        for quantity, found in overall.accuracy.items()
    ]
    safe = f"{screening.false_safe} of {screening.oom_rows} that ran out of memory were said to fit"
    alarm = f"{screening.false_alarms} of {screening.ran_rows} that ran were said not to"
    return [
        *tiles,
        ("False-safe", share(screening.false_safe_rate), safe),
        ("False alarms", share(screening.false_alarm_rate), alarm),
    ]


def _rows_of(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _signed(error: float) -> str:
    """With a minus as wide as the plus, not a hyphen."""
    return signed(error).replace("-", "−")


def _statistics(found: Accuracy) -> Cells:
    return (
        str(found.rows),
        share(found.mape),
        share(found.median),
        share(found.p95),
        _signed(found.worst_under) if found.worst_under else "–",
        _signed(found.worst_over) if found.worst_over else "–",
        share(found.coverage),
    )


def _statistic_rows(group: Group) -> tuple[Cells, ...]:
    return tuple((_short(q), *_statistics(found)) for q, found in group.accuracy.items())


def _short(quantity: Quantity) -> str:
    return WHAT[quantity].removesuffix(" memory")


_STATISTIC_COLUMNS = (Column("Quantity", numeric=False), *map(Column, _STATISTICS))


def _overall(overall: Group) -> Grid:
    return plain_grid(
        "overall", "Errors of all rows used", _STATISTIC_COLUMNS, _statistic_rows(overall)
    )


def _grouped(by: str, groups: Iterable[Group]) -> Grid:
    return Grid(
        key=f"by-{by}",
        caption=f"Errors by {NAMES[by]}",
        columns=_STATISTIC_COLUMNS,
        sections=tuple(
            Section(name=group.name, note=_used(group), rows=_statistic_rows(group))
            for group in groups
            if group.by == by
        ),
    )


def _used(group: Group) -> str:
    skipped = sum(group.skipped.values())
    return f"{_rows_of(group.used)} used, {skipped} left out"


def _verdicts(groups: Sequence[Group]) -> Grid:
    heads = ("Ran out", "False-safe", "Rate", "Ran", "False alarms", "Rate")
    rows = [
        (
            "all rows" if group.by == "overall" else f"{NAMES[group.by]} {group.name}",
            str(group.screening.oom_rows),
            str(group.screening.false_safe),
            share(group.screening.false_safe_rate),
            str(group.screening.ran_rows),
            str(group.screening.false_alarms),
            share(group.screening.false_alarm_rate),
        )
        for group in groups
    ]
    columns = (Column("Group", numeric=False), *map(Column, heads))
    return plain_grid("verdicts", "Verdicts, where some runs ran out of memory", columns, rows)


_REASON_COLUMNS = (Column("Reason", numeric=False), Column("Rows"))


def _reasons(overall: Group) -> Grid:
    rows = [(reason, str(count)) for reason, count in overall.skipped.items()]
    return plain_grid("reasons", "Rows left out, by reason", _REASON_COLUMNS, rows)


def _reasons_by(by: str, groups: Iterable[Group]) -> Grid:
    return Grid(
        key=f"reasons-by-{by}",
        caption=f"Rows left out, by {NAMES[by]}",
        columns=_REASON_COLUMNS,
        sections=tuple(
            Section(
                name=group.name,
                rows=tuple((reason, str(count)) for reason, count in group.skipped.items()),
            )
            for group in groups
            if group.by == by and group.skipped
        ),
    )


def _rows(used: Sequence[Outcome]) -> Grid:
    heads = ("Measured", "Predicted", "Error")
    return Grid(
        key="rows",
        caption="Measured, predicted and error of each row used",
        columns=(Column("Quantity", numeric=False), *map(Column, heads)),
        sections=tuple(
            Section(name=row.row_id, note=f"{row.method}, {row.gpu}", rows=tuple(_lines(row)))
            for row in used
        ),
    )


def _lines(row: Outcome) -> Iterable[tuple[str, str, str, str]]:
    for quantity, compared in row.compared.items():
        measured, predicted = _shown(quantity, compared)
        yield _short(quantity), measured, predicted, _signed(compared.error)
    if row.ran_out or row.verdict == "oom":
        yield "verdict", "ran out" if row.ran_out else "ran", str(row.verdict), ""


def _shown(quantity: Quantity, compared: Compared) -> tuple[str, str]:
    if quantity == "step":
        return format_seconds(compared.measured), format_seconds(compared.predicted)
    return format_bytes(int(compared.measured)), format_bytes(int(compared.predicted))


def _left_out(rows: Sequence[Outcome]) -> Grid:
    columns = (Column("Row", numeric=False), Column("Reason", numeric=False))
    cells = [(row.row_id, row.reason) for row in rows if not row.used]
    return plain_grid("rows-left-out", "Rows left out, one by one", columns, cells)


def _scatter(
    key: str,
    title: str,
    unit: str,
    quantities: Sequence[Quantity],
    used: Sequence[Outcome],
    overall: Group,
) -> Iterable[Drawing]:
    """One figure of these quantities, or none where nothing of them was measured."""
    pairs = [(q, [_pair(q, row) for row in used if q in row.compared]) for q in quantities]
    series = [(WHAT[quantity], found) for quantity, found in pairs if found]
    if series:
        axes = "Both axes are logarithmic; shaded is what is at most 10 % off."
        text = (axes, *(_described(overall, q) for q, found in pairs if found))
        title = f"{title}, predicted and measured"
        frame = Frame(key=f"scatter-{key}", title=title, description=text, unit=unit)
        yield validation_charts.scatter(frame, series)


def _pair(quantity: Quantity, row: Outcome) -> validation_charts.Pair:
    compared = row.compared[quantity]
    measured, predicted = _shown(quantity, compared)
    error = _signed(compared.error)
    text = f"{row.row_id}, {row.method}: {predicted} predicted, {measured} measured ({error})"
    scale = 1 if quantity == "step" else GIB
    return validation_charts.Pair(compared.measured / scale, compared.predicted / scale, text)


def _described(overall: Group, quantity: Quantity) -> str:
    """The figure in a sentence, for those who do not see it."""
    found = overall.accuracy[quantity]
    return (
        f"{WHAT[quantity].capitalize()}: {_rows_of(found.rows)}, "
        f"{share(found.mape)} off on average, from {_signed(found.worst_under)} to "
        f"{_signed(found.worst_over)}; {share(found.coverage)} inside their 90 % interval."
    )


def _histogram(quantity: Quantity, used: Sequence[Outcome], overall: Group) -> Drawing:
    errors = [row.compared[quantity].error for row in used if quantity in row.compared]
    frame = Frame(
        key=f"errors-{quantity}",
        title=f"Errors of {WHAT[quantity]}",
        description=(_described(overall, quantity),),
        unit="rows",
    )
    return validation_charts.histogram(frame, _EDGES, histogram(errors, _EDGES))
