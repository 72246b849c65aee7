"""Comparisons as one posterior: ties, relevance, weights, quantiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftadvisor.advisor.asked import Asked
from peftadvisor.advisor.beta import beta_cdf, beta_quantile
from peftadvisor.advisor.pooling import (
    MOST_PER_SOURCE,
    effective_count,
    outcome,
    pool,
    relevance,
    tie_zone,
)
from peftadvisor.data.evidence import (
    Comparison,
    against_lora,
)

ANYTHING = Asked()
"""No filter of relevance: every comparison counts in full."""
DECODER = Asked(task="instruction", parameters=8 * 10**9, kind="decoder", quantization="none")


def comparison(**changes: Any) -> Comparison:
    """A method that won by five points at the run that DECODER asks about."""
    known = Comparison(
        method="m",
        comparator="lora",
        model="Llama-3-8B",
        parameters=8 * 10**9,
        kind="decoder",
        task="instruction",
        quantized=False,
        examples=None,
        higher_is_better=True,
        point=1.0,
        value=55.0,
        comparator_value=50.0,
        test_size=None,
        source="a",
    )
    return replace(known, **changes)


def test_ties() -> None:
    # 2 sqrt((0.5 x 0.5 + 0.5 x 0.5) / 1000) = 0.0447 of 100 points.
    sized = comparison(value=50.0, test_size=1000)
    assert tie_zone(sized) == pytest.approx(4.4721359549995796)
    assert tie_zone(comparison(value=0.5, comparator_value=0.5, point=0.01, test_size=1000)) == (
        pytest.approx(0.044721359549995796)
    )
    assert [outcome(comparison(value=v)) for v in (51.0, 51.1, 49.0, 48.9)] == [0.5, 1, 0.5, 0]
    loss = comparison(higher_is_better=False, point=0.02, comparator_value=1.0)
    assert [outcome(replace(loss, value=v)) for v in (0.98, 0.97, 1.02, 1.03)] == [0.5, 1, 0.5, 0]


def test_the_suite_of_peft_needs_almost_four_points() -> None:
    rows = [row for row in against_lora()["hira"] if row.test_size]
    assert [round(tie_zone(row), 1) for row in rows] == [3.9]


def test_relevance_is_a_product() -> None:
    row = comparison(task="code", quantized=True, examples=1000, kind="encoder")
    asked = replace(DECODER, parameters=80 * 10**9, examples=10_000)
    # Neighbouring task, other kind, ten times the size, ten times the data, other base.
    assert relevance(row, asked) == pytest.approx(0.5 * 0.5 * 0.5 * 0.5 * 0.7)
    assert relevance(row, ANYTHING) == 1
    assert relevance(comparison(task="image"), DECODER) == 0.25
    assert relevance(comparison(), DECODER) == 1


def test_a_source_is_worth_four_comparisons_at_most() -> None:
    assert effective_count([1.0], 0.5) == 0.5
    assert effective_count([1.0] * 4, 0.5) == 0.5 * 3
    assert effective_count([1.0] * 100, 0.5) == 0.5 * MOST_PER_SOURCE
    # All at the same relevance r: the count without a filter, times r.
    assert effective_count([0.25] * 4, 0.5) == 0.25 * 0.5 * 3


RELEVANCES = st.lists(st.floats(0.01, 1), min_size=1, max_size=40)


@given(RELEVANCES, st.floats(0.01, 1), st.data())
def test_more_relevance_is_never_worth_less(
    relevances: list[float], further: float, data: st.DataObject
) -> None:
    before = effective_count(relevances, 1.0)
    assert effective_count([*relevances, further], 1.0) >= before - 1e-12
    chosen = data.draw(st.integers(0, len(relevances) - 1))
    raised = data.draw(st.floats(relevances[chosen], 1))
    more = [*relevances[:chosen], raised, *relevances[chosen + 1 :]]
    assert effective_count(more, 1.0) >= before - 1e-12


WEIGHTS = {"a": 0.3, "b": 0.6, "c": 1.0, "nobody": 0.0}
ROWS = st.lists(
    st.builds(
        comparison,
        value=st.sampled_from([45.0, 50.0, 55.0]),
        source=st.sampled_from("abc"),
        task=st.sampled_from(["instruction", "code", "image"]),
        parameters=st.integers(10**8, 7 * 10**10),
    ),
    min_size=1,
    max_size=30,
)


@given(ROWS, st.sampled_from([1.0, 2.0]))
def test_the_mean_lies_within_the_interval(rows: list[Comparison], prior: float) -> None:
    pooled = pool(rows, DECODER, WEIGHTS, prior)
    low, high = pooled.interval
    assert 0 < low < pooled.mean < high < 1


@given(ROWS, st.data())
def test_more_wins_never_lower_it(rows: list[Comparison], data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(rows) - 1))
    won = [replace(row, value=55.0) if i == chosen else row for i, row in enumerate(rows)]
    before, after = (pool(some, DECODER, WEIGHTS, 1.0) for some in (rows, won))
    assert after.mean >= before.mean - 1e-12
    assert after.effective == pytest.approx(before.effective)
    more = [*rows, replace(rows[chosen], value=55.0)]
    assert pool(more, ANYTHING, WEIGHTS, 1.0).mean >= (
        pool(rows, ANYTHING, WEIGHTS, 1.0).mean - 1e-12
    )


@given(ROWS, ROWS)
def test_a_source_of_no_weight_changes_nothing(
    rows: list[Comparison], others: list[Comparison]
) -> None:
    ignored = [replace(row, source="nobody") for row in others]
    assert pool([*rows, *ignored], DECODER, WEIGHTS, 1.0) == pool(rows, DECODER, WEIGHTS, 1.0)


@given(st.floats(1, 60), st.floats(1, 60), st.floats(0.01, 0.99))
def test_quantiles_invert_the_cdf(a: float, b: float, chance: float) -> None:
    assert beta_cdf(beta_quantile(chance, a, b), a, b) == pytest.approx(chance, abs=1e-12)


def test_quantiles_of_simple_betas() -> None:
    # Beta(1, 1) is uniform; Beta(a, 1) has the cdf x^a; Beta(2, 2) has 3 x^2 - 2 x^3.
    assert beta_quantile(0.1, 1, 1) == pytest.approx(0.1, abs=1e-15)
    assert beta_quantile(0.9, 3, 1) == pytest.approx(0.9 ** (1 / 3), abs=1e-14)
    assert beta_cdf(0.3, 2, 2) == pytest.approx(3 * 0.09 - 2 * 0.027, abs=1e-15)
    assert [beta_cdf(x, 2, 2) for x in (-1.0, 0.0, 1.0, 2.0)] == [0, 0, 1, 1]


@pytest.mark.parametrize(("a", "b"), [(1, 1), (1.85, 7.5), (4.2, 3.0), (1, 40), (30.5, 2)])
def test_quantiles_are_those_of_scipy(a: float, b: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    for chance in (0.01, 0.1, 0.5, 0.9, 0.99):
        assert beta_quantile(chance, a, b) == pytest.approx(stats.beta.ppf(chance, a, b), abs=1e-12)
