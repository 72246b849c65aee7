"""Methods side by side as text: a line each, with a bar of memory against the card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from peftadvisor.profiles import Estimate
from peftadvisor.report.canvas import Canvas, column, plain
from peftadvisor.report.sections import labelled, settings_line
from peftadvisor.units import format_count, format_gib, format_seconds

if TYPE_CHECKING:
    from peftadvisor.advisor.comparing import Compared, Comparison

_MARKS = {"fits": ("✔", "green"), "tight": ("!", "yellow"), "oom": ("✘", "red")}
# Columns, the page width from which each is shown, and whether it is a number.
_COLUMNS = (
    ("method", 0, False),
    ("", 0, False),
    ("GiB", 0, True),
    ("of the card", 100, False),
    ("risk", 70, True),
    ("trained", 80, True),
    ("step", 0, True),
    ("tokens/s", 60, True),
    ("≥ LoRA", 90, True),
)
_BAR = 20


def render(comparison: Comparison, width: int, color: bool) -> str:
    """The verdict in a line, the settings they share, a line per method, and who has none."""
    canvas = Canvas(width, color)
    estimates = [one.estimate for one in comparison.methods if one.estimate]
    canvas.add(_headline(comparison, estimates))
    if estimates:
        canvas.add(settings_line(estimates[0]))
        canvas.gap()
        canvas.add(_table(comparison, width))
        canvas.add(
            Text("* no other that fits is better in one respect and worse in none", style="dim")
        )
    refused = [(one.method, one.reason) for one in comparison.methods if one.estimate is None]
    if refused:
        canvas.section("Not estimated", labelled(refused))
    return canvas.text()


def _headline(comparison: Comparison, estimates: list[Estimate]) -> Text:
    fit = sum(estimate.verdict == "fits" for estimate in estimates)
    run = comparison.run
    cards = f"{run.gpus} × " if run.gpus > 1 else ""
    where = f"{run.model.id} on {cards}{run.gpu.name}"
    return Text(plain(f"{fit} of {len(comparison.methods)} methods fit: {where}"), style="bold")


def _table(comparison: Comparison, width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    shown = [entry for entry in _COLUMNS if width >= entry[1]]
    for head, _, right in shown:
        column(table, head, right=right)
    for one in comparison.methods:
        if one.estimate:
            cells = _cells(one, one.estimate)
            table.add_row(*(cells[head] for head, _, _ in shown))
    return table


def _cells(one: Compared, estimate: Estimate) -> dict[str, Text]:
    mark, style = _MARKS[estimate.verdict]
    usable, peak = estimate.run.gpu.usable_bytes, estimate.memory.device_peak_bytes
    filled = min(_BAR, round(_BAR * peak / usable))
    chance = estimate.evidence.probability_at_least_lora
    return {
        "method": Text(plain(f"{one.method}{' *' if one.pareto else ''}")),
        "": Text(mark, style=style),
        "GiB": Text(format_gib(peak)),
        "of the card": Text("█" * filled + "·" * (_BAR - filled), style=style),
        "risk": Text(f"{100 * estimate.oom_probability:.1f} %"),
        "trained": Text(format_count(estimate.parameters.trainable)),
        "step": Text(format_seconds(estimate.time.step_s)),
        "tokens/s": Text(f"{estimate.time.tokens_per_s:,.0f}"),
        "≥ LoRA": Text("–" if chance is None else f"{chance:.2f}"),
    }
