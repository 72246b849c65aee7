"""How far predictions were from measurements: pure statistics over rows, grouped.

An error is predicted / measured - 1, so below zero where too little was predicted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from peftadvisor.specs import Verdict

Quantity = Literal["allocated", "reserved", "device", "step"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""Peaks of allocated, reserved and device memory in bytes, and seconds of an optimizer step."""

GROUPINGS = ("source", "method", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A measured value beside its prediction; ``low`` to ``high`` is the 90 % interval."""

    measured: float
    low: float
    predicted: float
    high: float

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return self.predicted / self.measured - 1

    @property
    def covered(self) -> bool:
        """Whether the interval holds the measured value."""
        return self.low <= self.measured <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row: compared with its prediction, or left out for a ``reason``.

    ``ran_out`` says whether the run is known to have run out of memory (None: not known), and
    ``verdict`` what was predicted.
    """

    row_id: str
    source: str
    method: str
    gpu: str
    reason: str = ""
    compared: Mapping[Quantity, Compared] = field(default_factory=dict, hash=False)
    ran_out: bool | None = None
    verdict: Verdict | None = None

    @property
    def used(self) -> bool:
        """Whether the row counts."""
        return not self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Errors of one quantity: means and quantiles are of absolute relative errors.

    ``worst_under`` and ``worst_over`` are the errors farthest below and above, 0 where there is
    none; ``coverage`` is the share of measured values inside their interval.
    """

    rows: int
    mape: float
    median: float
    p95: float
    worst_under: float
    worst_over: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Verdicts on rows of which it is known whether they ran out of memory.

    False-safe: ``fits`` was said and it ran out. False alarm: ``oom`` was said and it ran.
    ``tight`` is neither.
    """

    oom_rows: int
    false_safe: int
    ran_rows: int
    false_alarms: int

    @property
    def false_safe_rate(self) -> float | None:
        """Share of the rows that ran out; None without such rows."""
        return self.false_safe / self.oom_rows if self.oom_rows else None

    @property
    def false_alarm_rate(self) -> float | None:
        """Share of the rows that ran; None without such rows."""
        return self.false_alarms / self.ran_rows if self.ran_rows else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one source, method or GPU (``by``), or all of them (``overall``)."""

    by: str
    name: str
    used: int
    skipped: Mapping[str, int] = field(hash=False)
    accuracy: Mapping[Quantity, Accuracy] = field(hash=False)
    screening: Screening

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        screening = self.screening
        return {
            "by": self.by,
            "name": self.name,
            "rows": {
                "used": self.used,
                "skipped": sum(self.skipped.values()),
                "reasons": dict(self.skipped),
            },
            **{name: asdict(self.accuracy[name]) for name in QUANTITIES if name in self.accuracy},
            "oom": {
                **asdict(screening),
                "false_safe_rate": screening.false_safe_rate,
                "false_alarm_rate": screening.false_alarm_rate,
            },
        }


def summarize(outcomes: Sequence[Outcome]) -> tuple[Group, ...]:
    """All rows together, then those of each source, method and GPU by name."""
    groups = [_group("overall", "all", outcomes)]
    for by in GROUPINGS:
        names = sorted({getattr(outcome, by) for outcome in outcomes})
        groups += [
            _group(by, name, [o for o in outcomes if getattr(o, by) == name]) for name in names
        ]
    return tuple(groups)


def accuracy(compared: Sequence[Compared]) -> Accuracy:
    """The statistics of at least one comparison."""
    errors = [c.error for c in compared]
    sizes = sorted(map(abs, errors))
    return Accuracy(
        rows=len(errors),
        mape=sum(sizes) / len(sizes),
        median=quantile(sizes, 0.5),
        p95=quantile(sizes, 0.95),
        worst_under=min(0.0, *errors),
        worst_over=max(0.0, *errors),
        coverage=sum(c.covered for c in compared) / len(compared),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of ordered values lies, linear between neighbours."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def histogram(errors: Iterable[float], edges: Sequence[float]) -> tuple[int, ...]:
    """How many lie below the first edge, between two (the lower one included), above the last."""
    counts = Counter(bisect_right(edges, error) for error in errors)
    return tuple(counts[number] for number in range(len(edges) + 1))


def screening(outcomes: Iterable[Outcome]) -> Screening:
    """Count the verdicts on rows of which it is known how they ended."""
    counts = Counter(
        (o.ran_out, o.verdict) for o in outcomes if o.verdict and o.ran_out is not None
    )
    return Screening(
        oom_rows=sum(n for (ran_out, _), n in counts.items() if ran_out),
        false_safe=counts[True, "fits"],
        ran_rows=sum(n for (ran_out, _), n in counts.items() if not ran_out),
        false_alarms=counts[False, "oom"],
    )


def _group(by: str, name: str, outcomes: Sequence[Outcome]) -> Group:
    used = [outcome for outcome in outcomes if outcome.used]
    compared = {q: [o.compared[q] for o in used if q in o.compared] for q in QUANTITIES}
    return Group(
        by=by,
        name=name,
        used=len(used),
        skipped=dict(Counter(o.reason for o in outcomes if not o.used).most_common()),
        accuracy={q: accuracy(found) for q, found in compared.items() if found},
        screening=screening(used),
    )
