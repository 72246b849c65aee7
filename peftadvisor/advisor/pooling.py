"""Published comparisons with LoRA as one Beta posterior: wins, their relevance and their weight.

Letters: w weight of a source, r relevance of one of its rows (1 is the run asked about), n how
many comparisons the source is worth, s its mean outcome. Every constant is a judgement: comparisons
of methods are few, and nobody has published how they carry over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from peftadvisor.advisor.asked import Asked
from peftadvisor.advisor.beta import beta_quantile
from peftadvisor.data.evidence import Comparison

TIE_ERRORS = 2.0  # standard errors of a difference that are no difference
TIE_POINTS = 1.0  # the same where the size of the test set is not known
MOST_PER_SOURCE = 4.0  # comparisons that one source is worth at most
NEIGHBOUR, OTHER_TASK = 0.5, 0.25
OTHER_KIND = 0.5
PER_FACTOR_TEN = 0.5  # of model size, and of data size
OTHER_BASE = 0.7  # quantized or not
TAIL = 0.1  # on each side of the 80 % interval
_ROUNDING = 1e-9  # of differences of decimal numbers

NEIGHBOURS = frozenset(
    frozenset(pair)
    for pair in (
        ("classification", "commonsense"),
        ("classification", "few-shot"),
        ("commonsense", "reasoning"),
        ("reasoning", "code"),
        ("reasoning", "rl"),
        ("preference", "rl"),
        ("instruction", "commonsense"),
        ("instruction", "reasoning"),
        ("instruction", "code"),
        ("instruction", "summarization"),
        ("instruction", "preference"),
        ("instruction", "few-shot"),
        ("summarization", "generation"),
    )
)
"""Families of tasks that are near each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """A Beta(a, b) of the chance that a method comes out at least as good as LoRA.

    ``worth`` is how many comparisons each source counted for; those of no worth are left out.
    """

    a: float
    b: float
    worth: Mapping[str, float]

    @property
    def effective(self) -> float:
        """Comparisons that all sources together are worth."""
        return math.fsum(self.worth.values())

    @property
    def mean(self) -> float:
        """The posterior mean; a tie is half a win."""
        return self.a / (self.a + self.b)

    @property
    def interval(self) -> tuple[float, float]:
        """The 80 % interval."""
        return beta_quantile(TAIL, self.a, self.b), beta_quantile(1 - TAIL, self.a, self.b)


def pool(
    rows: Iterable[Comparison], asked: Asked, weights: Mapping[str, float], prior: float
) -> Pooled:
    """The posterior from Beta(prior, prior): a source adds n s to a and n (1 - s) to b."""
    by_source = defaultdict(list)
    for row in rows:
        by_source[row.source].append((relevance(row, asked), outcome(row)))
    a = b = prior
    worth = {}
    for source, judged in by_source.items():
        n = effective_count([r for r, _ in judged], weights[source])
        if n > 0:
            s = sum(r * won for r, won in judged) / sum(r for r, _ in judged)
            a, b, worth[source] = a + n * s, b + n * (1 - s), n
    return Pooled(a=a, b=b, worth=worth)


def effective_count(relevances: list[float], weight: float) -> float:
    """What a source is worth, n = w r min(1 + log2(rows), 4): more rows say ever less.

    With r of the most relevant row, to which the others count in proportion, so that further rows
    of less relevance never take away from what there is.
    """
    most = max(relevances)
    rows = sum(relevances) / most
    return weight * most * min(1 + math.log2(rows), MOST_PER_SOURCE)


def outcome(row: Comparison) -> float:
    """1 where the method won, 0 where LoRA did, 0.5 within the zone of a tie."""
    lead = row.value - row.comparator_value
    if abs(lead) <= tie_zone(row) + _ROUNDING:
        return 0.5
    return float((lead > 0) == row.higher_is_better)


def tie_zone(row: Comparison) -> float:
    """The difference that says nothing, in units of the metric.

    Two standard errors of the difference of two shares of right answers, where it is known of how
    many: sqrt(p (1 - p) / n + q (1 - q) / n). One point elsewhere.
    """
    if row.test_size is None:
        return TIE_POINTS * row.point
    all_right = 100 * row.point
    p, q = row.value / all_right, row.comparator_value / all_right
    return TIE_ERRORS * math.sqrt((p * (1 - p) + q * (1 - q)) / row.test_size) * all_right


def relevance(row: Comparison, asked: Asked) -> float:
    """How much a comparison says of the run asked about: a product of discounts.

    What either side leaves open discounts nothing.
    """
    discount = _of_task(row.task, asked.task)
    if asked.kind and asked.kind != row.kind:
        discount *= OTHER_KIND
    if asked.quantization and (asked.quantization != "none") != row.quantized:
        discount *= OTHER_BASE
    return (
        discount
        * _of_size(row.parameters, asked.parameters)
        * _of_size(row.examples, asked.examples)
    )


def _of_task(known: str, asked: str | None) -> float:
    if asked is None or known == asked:
        return 1.0
    return NEIGHBOUR if frozenset((known, asked)) in NEIGHBOURS else OTHER_TASK


def _of_size(known: int | None, asked: int | None) -> float:
    if known is None or asked is None:
        return 1.0
    return float(PER_FACTOR_TEN ** abs(math.log10(known / asked)))
