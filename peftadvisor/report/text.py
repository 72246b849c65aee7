"""Values as text for people: the verdict first, then what it rests on.

The only module that imports rich at its top; it is imported when text is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from peftadvisor.report.canvas import Canvas, column, plain
from peftadvisor.report.sections import facts, labelled, memory, run_line, settings_line, verdict
from peftadvisor.report.values import Listing, Page, Sheet, Value
from peftadvisor.units import format_bytes, format_count

if TYPE_CHECKING:
    from peftadvisor.advisor.question import Recommendation
    from peftadvisor.profiles import Estimate


def render(value: Value, page: Page) -> str:
    """The value as text of the page's width, whatever kind it is."""
    return _TEXTS[type(value).__name__](value, page.width, page.color)


def _checked(value: Any, width: int, color: bool) -> str:
    from peftadvisor.report import preflight

    return preflight.render(value, width, color)


def _comparison(value: Any, width: int, color: bool) -> str:
    from peftadvisor.report import comparison

    return comparison.render(value, width, color)


def _health(value: Any, width: int, color: bool) -> str:
    from peftadvisor.report import health

    return health.render(value, width, color)


def _validation(value: Any, width: int, color: bool) -> str:
    from peftadvisor.report import validation

    return validation.render(value, width, color)


def render_estimate(estimate: Estimate, width: int, color: bool) -> str:
    """One run: verdict, memory by owner, FLOPs, time, cost, evidence, provenance."""
    canvas = Canvas(width, color)
    canvas.add(verdict(estimate))
    canvas.add(run_line(estimate))
    canvas.add(settings_line(estimate))
    canvas.gap()
    canvas.add(*memory(estimate, width))
    canvas.gap()
    canvas.add(facts(estimate))
    return canvas.text()


def render_recommendation(recommendation: Recommendation, width: int, color: bool) -> str:
    """The top pick with its settings, all that fits, all that does not, notes, provenance."""
    from peftadvisor.report import advice, counsel

    canvas = Canvas(width, color)
    canvas.add(advice.headline(recommendation))
    if recommendation.choices:
        best = recommendation.choices[0]
        canvas.add(run_line(best.estimate))
        canvas.add(settings_line(best.estimate))
        canvas.gap()
        canvas.add(*memory(best.estimate, width))
        canvas.gap()
        canvas.add(facts(best.estimate, because=advice.because(best)))
        canvas.section("Picks", counsel.picks(recommendation))
        if best.advised:
            heads = counsel.hyperparameters(best.advised, width)
            canvas.section(f"Hyperparameters of {best.estimate.run.method.name}", heads)
        if recommendation.pilot:
            canvas.section("Pilot", *counsel.pilot(recommendation.pilot))
        if best.findings:
            canvas.section("For (+), against (!), in dispute (?)", *counsel.findings(best.findings))
        canvas.section("Best first", advice.choices_table(recommendation, width))
        canvas.add(*advice.further(recommendation))
    if recommendation.question.batching:
        canvas.section("Data", *_data(recommendation, width))
    if recommendation.ways_out:
        lines = (Text(f"• {plain(way)}") for way in recommendation.ways_out)
        canvas.section("What would make it possible", *lines)
    if recommendation.rejected:
        canvas.section("Ruled out", advice.rejections_table(recommendation))
    if recommendation.notes:
        canvas.section("Notes", *(Text(f"• {plain(note)}") for note in recommendation.notes))
    return canvas.text()


def _data(recommendation: Recommendation, width: int) -> list[Any]:
    """The user's data in batches of the first choice."""
    from peftadvisor.cost_model.batching import batching
    from peftadvisor.report import lengths

    question = recommendation.question
    assert question.batching is not None
    training = question.training
    if recommendation.choices:
        training = recommendation.choices[0].estimate.run.training
    return lengths.parts(batching(question.batching.lengths, training), width)


def render_list(listing: Listing, width: int, color: bool) -> str:
    """A catalog as a table; on a narrow page the last columns go."""
    canvas = Canvas(width, color)
    canvas.add(_rows(listing, width))
    return canvas.text()


def render_sheet(sheet: Sheet, width: int, color: bool) -> str:
    """One thing: its title, its facts, and its table where it has one."""
    canvas = Canvas(width, color)
    canvas.add(Text(plain(sheet.title), style="bold"))
    canvas.add(labelled(sheet.facts.items()))
    if sheet.table.rows:
        canvas.section(sheet.table.kind.capitalize(), _rows(sheet.table, width))
    return canvas.text()


def _rows(listing: Listing, width: int) -> Table:
    names = listing.columns if width >= 100 else listing.columns[: max(3, width // 20)]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        head, _ = _COLUMNS.get(name, (name.replace("_", " "), str))
        numeric = name in _COLUMNS
        column(table, head, right=numeric, grow=not numeric)
    for row in listing.rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    return table


def _cell(name: str, value: Any) -> Text:
    if value is None:
        return Text("–", style="dim")
    _, form = _COLUMNS.get(name, (name, str))
    return Text(plain(form(value)))


def _tera(rate: float) -> str:
    return f"{rate / 1e12:.4g}"


def _dollars(usd: float) -> str:
    return f"{usd:.2f}"


_COLUMNS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "bf16_flops_per_s": ("bf16 TFLOP/s", _tera),
    "max_positions": ("positions", str),
    "memory_bandwidth_bytes_per_s": ("TB/s", _tera),
    "parameters": ("parameters", format_count),
    "spot_usd_per_gpu_hour": ("spot $/h", _dollars),
    "usable_bytes": ("memory", format_bytes),
    "usd_per_gpu_hour": ("$/h", _dollars),
}
"""Heads and formats of the columns that hold numbers."""

_TEXTS: Mapping[str, Callable[[Any, int, bool], str]] = {
    "Checked": _checked,
    "Comparison": _comparison,
    "Estimate": render_estimate,
    "Health": _health,
    "Listing": render_list,
    "Recommendation": render_recommendation,
    "Sheet": render_sheet,
    "Validation": _validation,
}
"""What lays out each type of value, by its name: no type is loaded that is not there to show."""
