"""The parts of a recommendation's text that give reasons: picks, hyperparameters, findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from peftadvisor.report.canvas import column, plain
from peftadvisor.report.sections import labelled
from peftadvisor.units import format_gib, format_seconds

if TYPE_CHECKING:
    from peftadvisor.advisor.advised import Advised, Finding, Value
    from peftadvisor.advisor.pilot import PilotPlan
    from peftadvisor.advisor.question import Pick, Recommendation

_ROLES = {"safest": "Safest", "cheapest": "Cheapest", "smallest": "Smallest"}
_MARKS = {"supports": "+", "warns": "!", "conflict": "?"}


def picks(recommendation: Recommendation) -> Table:
    """Each named answer: what, why, why not the next one, what limits it, what would change it."""
    rows: list[tuple[str, str]] = []
    for pick in recommendation.picks:
        rows += [
            (_ROLES[pick.role], _what(pick, recommendation)),
            ("  why", pick.why),
            ("  not next", pick.not_next),
            ("  limited by", pick.limited_by),
            ("  change", "\n".join(pick.changes)),
        ]
    return labelled(rows)


def _what(pick: Pick, recommendation: Recommendation) -> str:
    estimate = pick.choice.estimate
    run, training, cost = estimate.run, estimate.run.training, estimate.cost
    where = f" on {run.gpus} × {run.gpu.id}" if len(recommendation.question.places) > 1 else ""
    parts = [
        f"{run.method.name}{where}",
        *(f"{name} {value_words(value)}" for name, value in run.method.settings),
        f"micro-batch {training.micro_batch_size} × {training.gradient_accumulation_steps}",
        *(["checkpointing"] if training.gradient_checkpointing != "none" else []),
        *([training.optimizer] if training.optimizer != "adamw" else []),
        f"{format_gib(estimate.memory.device_peak_bytes)} GiB",
        f"{format_seconds(estimate.time.step_s)} a step",
    ]
    if cost.hours_total is not None:
        parts.append(f"{format_seconds(3600 * cost.hours_total)} in all")
    if cost.usd_total is not None:
        parts.append(f"${cost.usd_total:,.2f}")
    return ", ".join(parts)


def hyperparameters(advised: Sequence[Advised], width: int) -> Table:
    """Value, range and rule of each; the source where the page is wide."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    column(table, "setting")
    column(table, "value", right=True)
    if width >= 80:
        column(table, "range", right=True)
    column(table, "rule", grow=True)
    for one in advised:
        cells = [one.name, value_words(one.value)]
        if width >= 80:
            cells.append(_range(one))
        table.add_row(*(Text(plain(cell)) for cell in (*cells, f"{one.rule} [{one.source}]")))
    return table


def findings(found: Sequence[Finding]) -> list[Text]:
    """What speaks for (+) and against (!) the first choice, and where sources disagree (?)."""
    return [
        Text(
            plain(
                f"{_MARKS[one.kind]} {one.rule}: {one.statement} [{one.source}; {one.confidence}]"
            )
        )
        for one in found
    ]


def pilot(plan: PilotPlan) -> list[Text]:
    """What to run first."""
    return [Text(line) for line in pilot_words(plan)]


def pilot_words(plan: PilotPlan) -> list[str]:
    """What to run first, in sentences."""
    rates = ", ".join(f"{rate:.2g}" for rate in plan.learning_rates)
    part = "5 to 10 % of the data"
    if plan.examples_low is not None and plan.examples_high is not None:
        part += f" ({plan.examples_low:,} to {plan.examples_high:,} examples)"
    lines = [
        f"First learning rates {rates} on {part}, one seed each; the best again with "
        f"{plan.then_seeds} seeds."
    ]
    if plan.detectable_difference is not None:
        lines.append(
            f"On {plan.test_examples:,} test examples only differences of "
            f"{100 * plan.detectable_difference:.1f} points or more are more than chance (95 %)."
        )
    return lines


def _range(one: Advised) -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{one.low:.3g}" if one.low == one.high else f"{one.low:.3g}–{one.high:.3g}"


def value_words(value: Value) -> str:
    """A hyperparameter's value."""
    if isinstance(value, tuple):
        return ", ".join(value_words(one) for one in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
