"""A look at the installation as text: a page for people, and a block for bug reports."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from peftadvisor.integrations.health import Area, Check, Health, State
from peftadvisor.report.canvas import Canvas, column, plain

_MARKS: dict[State, tuple[str, str]] = {
    "ok": ("✔", "green"),
    "note": ("!", "yellow"),
    "fault": ("✘", "bold red"),
}
_TITLES: tuple[tuple[Area, str], ...] = (
    ("advice", "Advice on bundled models"),
    ("recording", "Other models, measuring, counting tokens"),
    ("machine", "This machine"),
    ("files", "Folders"),
    ("environment", "Environment"),
)


def render(health: Health, width: int, color: bool) -> str:
    """What works first, then everything by area."""
    canvas = Canvas(width, color)
    canvas.add(_headline(health))
    for area, title in _TITLES:
        checks = [check for check in health.checks if check.area == area]
        if checks:
            canvas.section(title, _table(checks))
    return canvas.text()


def block(health: Health) -> str:
    """Everything in plain lines, to be pasted where a fault is reported."""
    lines = [f"peftadvisor {health.version}"]
    for check in health.checks:
        mark = "" if check.state == "ok" else f" [{check.state}]"
        lines.append(plain(f"{check.name}: {check.found}{mark}"))
    return "\n".join(lines)


def _headline(health: Health) -> Text:
    if health.works:
        notes = sum(check.state == "note" for check in health.checks)
        more = f"; {notes} note{'s' * (notes != 1)}" if notes else ""
        return Text(f"✔ peftadvisor {health.version} can advise{more}", style="bold green")
    faults = ", ".join(check.name for check in health.checks if check.state == "fault")
    return Text(f"✘ peftadvisor {health.version} cannot advise: {faults}", style="bold red")


def _table(checks: Iterable[Check]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    column(table, "")
    column(table, "")
    column(table, "", grow=True)
    for check in checks:
        mark, style = _MARKS[check.state]
        words = Text(plain(check.found))
        if check.remedy:
            words.append("\n").append(plain(check.remedy), style="dim")
        table.add_row(Text(mark, style=style), Text(check.name), words)
    return table
