"""A check of configs as text: whether each passes, why or why not, what would help, what was read.

Problems come worst first; the values of the run, with what gave them, come last.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from peftadvisor.integrations.checked import Checked, Fix, Level, Problem, Verdict
from peftadvisor.integrations.configs.reader import shown
from peftadvisor.report.canvas import Canvas, column, plain
from peftadvisor.report.checks import (
    UNKNOWN_RULE,
    clean,
    fix_words,
    headline,
    outlook,
    unknown_words,
    whence,
)
from peftadvisor.report.sections import labelled, percent, run_line, settings_line
from peftadvisor.units import format_bytes, format_gib

_MARKS = {0: ("✔", "bold green"), 3: ("✘", "bold red"), 4: ("!", "bold yellow")}
_TITLES: tuple[tuple[Level, str], ...] = (
    ("error", "Errors"),
    ("warning", "Warnings"),
    ("note", "Notes"),
)
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def render(checked: Checked, width: int, color: bool) -> str:
    """The whole answer, one config below the other."""
    canvas = Canvas(width, color)
    if len(checked.verdicts) != 1:
        canvas.add(_overview(checked))
    for position, verdict in enumerate(checked.verdicts):
        if position or len(checked.verdicts) != 1:
            canvas.gap()
        _add(canvas, verdict)
    return canvas.text()


def _overview(checked: Checked) -> Text:
    passed = sum(verdict.exit_code == 0 for verdict in checked.verdicts)
    _, style = _MARKS[checked.exit_code]
    return Text(f"{passed} of {len(checked.verdicts)} configs pass", style=style)


def _add(canvas: Canvas, verdict: Verdict) -> None:
    """One config: the verdict, the numbers, the problems, the way out, and the values."""
    config, estimate = verdict.config, verdict.estimate
    canvas.add(_verdict(verdict))
    canvas.add(Text(plain(f"{verdict.path}, {config.tool} {config.version}")))
    canvas.add(run_line(estimate), settings_line(estimate))
    canvas.gap()
    canvas.add(labelled(outlook(estimate)))
    for level, title in _TITLES:
        problems = verdict.at(level)
        if problems:
            canvas.section(title, _problems(problems))
    if config.unknown and UNKNOWN_RULE not in {problem.rule for problem in verdict.problems}:
        canvas.section("Unknown keys", Text(plain(unknown_words(config.unknown))))
    if config.notes:
        canvas.section(
            "Left out of the prediction", *(Text(f"• {plain(note)}") for note in config.notes)
        )
    if verdict.fix is not None:
        canvas.section("Smallest change that fits", *_fix(verdict.fix, config.tool))
    if verdict.traced:
        canvas.section("Values", _values(verdict))


def _verdict(verdict: Verdict) -> Text:
    """The answer in one line."""
    estimate = verdict.estimate
    peak, usable = estimate.memory.device_peak_bytes, estimate.run.gpu.usable_bytes
    over = f", {format_bytes(peak - usable)} too much" if peak > usable else ""
    mark, style = _MARKS[verdict.exit_code]
    return Text(
        plain(
            f"{mark} {headline(verdict)}: {format_gib(peak)} of {format_gib(usable)} GiB{over}, "
            f"OOM risk {percent(estimate.oom_probability)}"
        ),
        style=style,
    )


def _problems(problems: Iterable[Problem]) -> Table:
    """A rule beside what it says, where, and who says so."""
    rows = []
    for problem in problems:
        source = f"Source: {problem.source}" if problem.source else ""
        lines = (problem.message, whence(problem), source)
        rows.append((plain(problem.rule), "\n".join(line for line in lines if line)))
    return labelled(rows)


def _fix(fix: Fix, tool: str) -> Iterable[Text]:
    yield Text(plain(fix_words(fix, tool)))
    for line in clean(fix.diff).rstrip("\n").split("\n") if fix.diff else ():
        yield Text(line, style=_DIFF_STYLES.get(line[:1], "dim"))


def _values(verdict: Verdict) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for head in ("", "value", "from"):
        column(table, head, grow=True)
    for traced in verdict.traced:
        value = "–" if traced.value is None else shown(traced.value)
        table.add_row(*(Text(plain(cell)) for cell in (traced.name, value, traced.source)))
    return table
