"""Whatever the rows: each is used or left out, in every grouping, and statistics stay in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftadvisor.cost_model.accuracy import GROUPINGS, Compared, Outcome, summarize

amounts = st.floats(1e-3, 1e12)
comparisons = st.builds(Compared, measured=amounts, low=amounts, predicted=amounts, high=amounts)
names = st.sampled_from(["a", "b", "c"])
outcomes = st.builds(
    Outcome,
    row_id=names,
    source=names,
    method=names,
    gpu=names,
    reason=st.sampled_from(["", "", "one reason", "another"]),
    compared=st.dictionaries(
        st.sampled_from(["allocated", "reserved", "device", "step"]), comparisons
    ),
    ran_out=st.sampled_from([True, False, None]),
    verdict=st.sampled_from(["fits", "tight", "oom"]),
)


@given(st.lists(outcomes, max_size=20))
def test_used_and_left_out_are_all_rows(rows: list[Outcome]) -> None:
    groups = summarize(rows)
    for by in ("overall", *GROUPINGS):
        members = [group for group in groups if group.by == by]
        assert sum(g.used + sum(g.skipped.values()) for g in members) == len(rows)
        assert sum(g.used for g in members) == sum(not row.reason for row in rows)


@given(st.lists(outcomes, max_size=20))
def test_statistics_are_in_order(rows: list[Outcome]) -> None:
    for group in summarize(rows):
        for found in group.accuracy.values():
            worst = max(-found.worst_under, found.worst_over)
            assert 0 <= found.median <= found.p95 <= worst * (1 + 1e-9)
            assert 0 <= found.mape <= worst * (1 + 1e-9)
            assert 0 <= found.coverage <= 1
            assert 1 <= found.rows <= group.used
        verdicts = group.screening
        assert verdicts.false_safe <= verdicts.oom_rows
        assert verdicts.false_alarms <= verdicts.ran_rows
        assert verdicts.oom_rows + verdicts.ran_rows <= group.used
