"""Statistics of predictions against measurements, with numbers worked out by hand."""

from __future__ import annotations

import pytest

from peftadvisor.cost_model.accuracy import (
    Accuracy,
    Compared,
    Outcome,
    Screening,
    accuracy,
    quantile,
    screening,
    summarize,
)
from peftadvisor.specs import Verdict


def compared(predicted: float, low: float = 0.0, high: float = 1000.0) -> Compared:
    return Compared(measured=100.0, low=low, predicted=predicted, high=high)


def outcome(
    source: str = "s",
    method: str = "lora",
    *,
    reason: str = "",
    ran_out: bool | None = None,
    verdict: Verdict | None = None,
    **values: Compared,
) -> Outcome:
    return Outcome(
        row_id="r",
        source=source,
        method=method,
        gpu="g",
        reason=reason,
        compared=dict(values),  # type: ignore[arg-type]
        ran_out=ran_out,
        verdict=verdict,
    )


def test_one_comparison() -> None:
    assert compared(125.0).error == 0.25
    assert compared(50.0).error == -0.5
    assert [
        compared(1.0, low, high).covered for low, high in ((100, 100), (101, 200), (0, 99))
    ] == [
        True,
        False,
        False,
    ]


def test_the_statistics() -> None:
    # errors -50, -25, +25, +100 %; sizes in order 25, 25, 50, 100 %
    # mean 200 / 4; median (25 + 50) / 2; 95 %: position 0.95 * 3 = 2.85, 50 + 0.85 * 50
    rows = [compared(50.0, high=99.0), compared(200.0), compared(75.0), compared(125.0, low=101.0)]
    assert accuracy(rows) == Accuracy(
        rows=4,
        mape=0.5,
        median=0.375,
        p95=pytest.approx(0.925),
        worst_under=-0.5,
        worst_over=1.0,
        coverage=0.5,
    )


def test_worst_of_one_side_is_zero_where_all_are_on_the_other() -> None:
    one = accuracy([compared(125.0)])
    assert (one.worst_under, one.worst_over, one.p95, one.median) == (0.0, 0.25, 0.25, 0.25)
    assert accuracy([compared(75.0)]).worst_over == 0.0


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.9, 4.6), (1.0, 5.0)]
)
def test_quantiles_are_linear_between_neighbours(share: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], share) == pytest.approx(value)


def test_verdicts_on_rows_of_which_the_end_is_known() -> None:
    ends: list[tuple[bool | None, Verdict | None]] = [
        (True, "fits"),  # false-safe
        (True, "tight"),
        (True, "oom"),
        (True, "oom"),
        (False, "fits"),
        (False, "tight"),
        (False, "oom"),  # false alarm
        (None, "oom"),
        (True, None),
    ]
    found = screening([outcome(ran_out=ran_out, verdict=verdict) for ran_out, verdict in ends])
    assert found == Screening(oom_rows=4, false_safe=1, ran_rows=3, false_alarms=1)
    assert found.false_safe_rate == 0.25
    assert found.false_alarm_rate == pytest.approx(1 / 3)


def test_rates_without_rows_are_unknown() -> None:
    none = screening([])
    assert (none.false_safe_rate, none.false_alarm_rate) == (None, None)


def test_groups() -> None:
    rows = [
        outcome("a", "lora", reserved=compared(125.0), step=compared(50.0)),
        outcome("a", "full", reserved=compared(75.0)),
        outcome("b", "lora", reason="why not"),
        outcome("b", "lora", reason="why not"),
        outcome("b", "full", reason="something else"),
    ]
    groups = {(group.by, group.name): group for group in summarize(rows)}
    assert list(groups) == [
        ("overall", "all"),
        ("source", "a"),
        ("source", "b"),
        ("method", "full"),
        ("method", "lora"),
        ("gpu", "g"),
    ]
    overall = groups["overall", "all"]
    assert (overall.used, overall.skipped) == (2, {"why not": 2, "something else": 1})
    assert (overall.accuracy["reserved"].rows, overall.accuracy["reserved"].mape) == (2, 0.25)
    assert overall.accuracy["step"].worst_under == -0.5
    assert set(overall.accuracy) == {"reserved", "step"}
    assert groups["source", "b"].accuracy == {}
    assert groups["method", "lora"].skipped == {"why not": 2}
    data = overall.to_dict()
    assert data["rows"] == {
        "used": 2,
        "skipped": 3,
        "reasons": {"why not": 2, "something else": 1},
    }
    assert data["oom"]["false_safe_rate"] is None
    assert data["reserved"]["coverage"] == 1.0
