"""``import peftadvisor``: what it offers, and that it is there."""

from __future__ import annotations

from typing import Any

import pytest

import peftadvisor
from peftadvisor import advisor, specs
from peftadvisor.profiles import Estimate


def test_the_list_of_names_is_sorted_and_complete() -> None:
    assert peftadvisor.__all__ == sorted(peftadvisor.__all__)
    functions = {"check", "estimate", "profile", "recommend"}
    assert set(peftadvisor.__all__) == functions | set(peftadvisor._HOMES)
    assert set(peftadvisor.__all__) <= set(dir(peftadvisor))


@pytest.mark.parametrize("name", peftadvisor.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(peftadvisor, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'guess'"):
        peftadvisor.guess  # noqa: B018


def test_estimate_has_a_budget_without_limits(
    estimate: Estimate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fake(run: specs.RunSpec, *, budget: specs.Budget) -> Estimate:
        asked.append((run, budget))
        return estimate

    monkeypatch.setattr(advisor, "estimate", fake, raising=False)
    assert peftadvisor.estimate(estimate.run) is estimate
    assert asked == [(estimate.run, specs.Budget())]


def test_recommend_takes_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisor, "recommend", lambda question: question, raising=False)
    question: Any = peftadvisor.recommend("t5-11b", "a100-40g", specs.Budget(max_usd=50.0))
    assert question.model.id == "google-t5/t5-11b"
    (place,) = question.places
    assert (place.gpu.id, place.count) == ("a100-40g", 1)
    assert question.budget.max_usd == 50.0
    assert question.training == specs.TrainingSpec()
