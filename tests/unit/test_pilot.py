"""The pilot plan: three rates, a part of the data, and what a test set can tell apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.advisor.pilot import detectable_difference, pilot_plan
from peftadvisor.errors import UsageError
from peftadvisor.specs import Job


def test_a_plan() -> None:
    plan = pilot_plan(3e-4, Job(examples=50_001), test_examples=1319, accuracy=0.478)
    assert plan.learning_rates == pytest.approx((1e-4, 3e-4, 9e-4))
    assert (plan.first_seeds, plan.then_seeds) == (1, 2)
    # A twentieth and a tenth of 50,001, rounded up.
    assert (plan.examples_low, plan.examples_high) == (2501, 5001)
    # 1.96 √(2 · 0.478 · 0.522 / 1319) = 1.96 √(0.499032 / 1319) = 1.96 · 0.019451
    assert plan.detectable_difference == pytest.approx(0.038124, abs=5e-7)
    assert plan.to_dict()["test_examples"] == 1319


def test_what_is_not_said_is_left_open() -> None:
    plan = pilot_plan(1e-4, Job(), test_examples=None)
    assert (plan.examples_low, plan.examples_high, plan.detectable_difference) == (None, None, None)


def test_four_examples_tell_nothing_apart() -> None:
    assert detectable_difference(4, 0.5) == pytest.approx(1.96 * 0.5 / 2**0.5)  # 0.69


@hypothesis_settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(0.001, 0.999))
def test_more_examples_tell_more_apart(examples: int, accuracy: float) -> None:
    half = detectable_difference(4 * examples, accuracy)
    assert half == pytest.approx(detectable_difference(examples, accuracy) / 2)
    assert half <= detectable_difference(4 * examples, 0.5) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("rate", "examples", "accuracy", "problem"),
    [
        (0.0, 100, 0.5, "learning_rate is 0.0"),
        (float("nan"), 100, 0.5, "learning_rate is nan"),
        (1e-4, 0, 0.5, "test_examples is 0"),
        (1e-4, 100, 1.0, "accuracy is 1.0"),
        (1e-4, 100, -0.1, "accuracy is -0.1"),
    ],
)
def test_bad_input(rate: float, examples: int, accuracy: float, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        pilot_plan(rate, Job(), test_examples=examples, accuracy=accuracy)
