"""The parts of a recommendation's text: headline, reasons, what fits, what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from peftadvisor.report.canvas import column, plain
from peftadvisor.report.sections import verdict
from peftadvisor.units import format_bytes, format_count, format_gib

if TYPE_CHECKING:
    from peftadvisor.advisor.question import Choice, Recommendation, Rejection

# Columns of the table of choices and the page width from which each is shown.
_CHOICE_COLUMNS = (
    ("method", 0, False),
    ("gpu", 0, False),
    ("batch", 0, True),
    ("GiB", 0, True),
    ("trained", 80, True),
    ("tokens/s", 0, True),
    ("$/h", 70, True),
    ("≥ LoRA", 80, True),
    ("checkpointing", 90, False),
    ("risk", 110, True),
    ("why", 120, False),
)


def headline(recommendation: Recommendation) -> Text:
    """The answer in one line."""
    if recommendation.choices:
        best = recommendation.choices[0].estimate
        line = Text(plain(f"Take {best.run.method.name}: "), style="bold")
        return line.append_text(verdict(best))
    where = plain(f"{recommendation.question.model.id} on {_places(recommendation)}")
    return Text(f"✘ nothing fits: {where}{_closest(recommendation)}", style="bold red")


def _places(recommendation: Recommendation) -> str:
    places = recommendation.question.places
    if len(places) > 1:
        return f"any of {len({place.gpu.id for place in places})} kinds of GPU"
    return f"{places[0].count} × {places[0].gpu.name}"


def because(choice: Choice) -> list[str]:
    """Why this rank, and the findings it rests on."""
    cited = [f"findings: {', '.join(choice.citations)}"] if choice.citations else []
    return [*choice.score_reasons, *cited]


def choices_table(recommendation: Recommendation, width: int) -> Table:
    """One line per fitting run; a narrow page shows fewer columns."""
    several = len(recommendation.question.places) > 1
    shown = [e for e in _CHOICE_COLUMNS if width >= e[1] and (several or e[0] != "gpu")]
    table = _table()
    for head, _, right in shown:
        column(table, head, right=right, grow=head == "why")
    for choice in recommendation.choices:
        cells = _cells(choice)
        table.add_row(*(Text(plain(cells[head])) for head, _, _ in shown))
    return table


def further(recommendation: Recommendation) -> list[Text]:
    """What else fits, and how to see it."""
    names = recommendation.further
    starred = any(choice.pareto for choice in recommendation.choices)
    mark = "* no other is better in memory, time, money or evidence and worse in none"
    lines = [Text(mark, style="dim")] if starred else []
    if not names:
        return lines
    shown = len(recommendation.choices) + len(names)
    listed = ", ".join(names)
    more = f"{len(names)} more may fit, ranked lower: {listed} (--top {shown})"
    return [*lines, Text(plain(more))]


def rejections_table(recommendation: Recommendation) -> Table:
    """One line per method that was ruled out, and by how much."""
    table = _table()
    column(table, "method")
    column(table, "too much by", right=True)
    column(table, "reason", grow=True)
    for rejection in recommendation.rejected:
        over = rejection.over_by_bytes
        table.add_row(
            Text(plain(rejection.method)),
            Text("–" if over is None else format_bytes(over)),
            Text(plain(rejection.reason)),
        )
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 2, 0, 0), header_style="dim")


def _cells(choice: Choice) -> dict[str, str]:
    estimate = choice.estimate
    training, usd = estimate.run.training, estimate.cost.usd_per_hour
    accumulation = training.gradient_accumulation_steps
    gpus = estimate.run.gpus
    chance = estimate.evidence.probability_at_least_lora
    return {
        "method": f"{estimate.run.method.name}{' *' if choice.pareto else ''}",
        "gpu": f"{f'{gpus} × ' if gpus > 1 else ''}{estimate.run.gpu.id}",
        "≥ LoRA": "–" if chance is None else f"{chance:.2f}",
        "batch": f"{training.micro_batch_size} × {accumulation}",
        "GiB": format_gib(estimate.memory.device_peak_bytes),
        "trained": format_count(estimate.parameters.trainable),
        "tokens/s": f"{estimate.time.tokens_per_s:,.0f}",
        "$/h": "–" if usd is None else f"{usd:.2f}",
        "checkpointing": training.gradient_checkpointing,
        "risk": f"{100 * estimate.oom_probability:.1f} %",
        "why": choice.score_reasons[0] if choice.score_reasons else "",
    }


def _closest(recommendation: Recommendation) -> str:
    misses: list[tuple[int, Rejection]] = [
        (rejection.over_by_bytes, rejection)
        for rejection in recommendation.rejected
        if rejection.over_by_bytes is not None
    ]
    if not misses:
        return ""
    over, closest = min(misses, key=lambda miss: miss[0])
    return plain(f"; {closest.method} comes closest, {format_bytes(over)} too much")
