"""What must hold of every recommendation, whatever is asked."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftadvisor.advisor.places import Place, for_hire, named
from peftadvisor.advisor.question import Needs, Question
from peftadvisor.advisor.ranking import tier
from peftadvisor.advisor.recommending import first_choice, recommend
from peftadvisor.advisor.searching import preference, search
from peftadvisor.advisor.verifying import first_that_holds, holds
from peftadvisor.data.gpus import custom_gpu, find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method
from peftadvisor.profiles import Estimate
from peftadvisor.specs import Budget, Job, TrainingSpec
from peftadvisor.units import GIB

METHODS = ("lora-all", "qlora", "full", "ia3")
MODELS = ("Qwen/Qwen2.5-0.5B", "google-bert/bert-base-uncased", "google-t5/t5-large")


@pytest.fixture(autouse=True)
def no_torch(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As in the light install."""
    monkeypatch.setattr("peftadvisor.simulator.obtain.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


quick = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def asked(model: str, gib: float, **changes: Any) -> Question:
    gpu = custom_gpu(find_gpu("rtx-4090"), int(gib * GIB))
    question = Question(
        model=find_model(model),
        places=named(gpu),
        training=TrainingSpec(seq_len=256),
        budget=Budget(total_tokens=10**7),
        effective_batch_size=16,
        methods=METHODS,
        job=Job(task="instruction", examples=20_000),
    )
    return replace(question, **changes)


def rank(question: Question) -> tuple[float, ...]:
    """What the first choice is ranked by; infinite where nothing fits."""
    found = search(question, [find_method(name) for name in METHODS], None)
    ranked = []
    for one in found:
        held = first_that_holds(question, one.fitting)
        if held:
            ranked.append((tier(question, one.method), *preference(question, held[0])))
    return min(ranked, default=(float("inf"),))


@quick
@given(
    model=st.sampled_from(MODELS),
    gib=st.floats(2, 12),
    more=st.floats(1.0, 3.0),
)
def test_more_memory_never_gives_a_worse_first_choice(model: str, gib: float, more: float) -> None:
    """A limit on memory, on the same card: what is within the smaller is within the larger."""
    question = asked(model, 24)
    limits = (int(gib * GIB), int(more * gib * GIB))
    less, much = (
        replace(question, budget=replace(question.budget, max_memory_bytes=limit))
        for limit in limits
    )
    assert rank(much) <= rank(less)


@quick
@given(model=st.sampled_from(MODELS), usd=st.floats(0.001, 0.5), more=st.floats(1.0, 10.0))
def test_more_money_never_gives_a_worse_first_choice(model: str, usd: float, more: float) -> None:
    places = tuple(place for place in _hired() if place.count == 1)[::4]
    question = asked(model, 24, places=places)
    less, much = (
        replace(question, budget=replace(question.budget, max_usd=limit))
        for limit in (usd, more * usd)
    )
    assert rank(much) <= rank(less)


@cache
def _hired() -> tuple[Place, ...]:
    return for_hire()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    model=st.sampled_from(MODELS),
    hours=st.none() | st.floats(0.001, 2),
    usd=st.none() | st.floats(0.001, 1),
    gib=st.none() | st.floats(1, 12),
    stored=st.none() | st.integers(10**5, 10**9),
)
def test_budgets_bind(
    model: str, hours: float | None, usd: float | None, gib: float | None, stored: int | None
) -> None:
    """No choice and no pick exceeds a limit; where nothing is within them, a way out is named."""
    memory = None if gib is None else int(gib * GIB)
    question = asked(
        model,
        16,
        budget=Budget(total_tokens=10**7, max_hours=hours, max_usd=usd, max_memory_bytes=memory),
        needs=Needs(max_stored_bytes=stored),
        methods=("lora-all", "ia3"),
    )
    answer = recommend(question)
    found = [*answer.choices, *(pick.choice for pick in answer.picks)]
    for choice in found:
        assert holds(question, choice.estimate)
        cost, kept = choice.estimate.cost, choice.estimate.parameters.stored_bytes
        assert hours is None or (cost.hours_total or 0) <= hours
        assert usd is None or (cost.usd_total or 0) <= usd
        assert memory is None or choice.estimate.memory.device_peak_bytes <= memory
        assert stored is None or kept <= stored
    assert bool(answer.choices) == bool(answer.picks)
    assert answer.choices or answer.ways_out or len(answer.rejected) == 2


def test_the_first_choice_is_that_of_the_whole_answer() -> None:
    question = asked("Qwen/Qwen2.5-0.5B", 16)
    answer = recommend(question)
    assert first_choice(question) == answer.choices[0].estimate
    assert answer.picks[0].choice == answer.choices[0]
    assert answer.weighed > 0


def test_an_answer_is_the_same_again() -> None:
    question = asked("google-t5/t5-large", 16)
    assert recommend(question).to_dict() == recommend(question).to_dict()


def test_an_impossible_budget_names_what_it_would_take() -> None:
    question = asked(
        "Qwen/Qwen2.5-0.5B", 16, budget=Budget(total_tokens=10**9, max_usd=0.01), methods=("ia3",)
    )
    answer = recommend(question)
    assert not answer.choices
    (way,) = answer.ways_out
    assert "USD of the 0.01 allowed" in way
    needed = float(way.split("it takes ")[1].split(" USD")[0])
    allowed = replace(question, budget=replace(question.budget, max_usd=1.01 * needed))
    assert recommend(allowed).choices


def test_needs_rule_methods_out() -> None:
    question = asked("Qwen/Qwen2.5-0.5B", 16, needs=Needs(mergeable=True), methods=("houlsby",))
    (rejection,) = recommend(question).rejected
    assert rejection.reason == "it cannot be merged into the weights"


def test_without_a_gpu_the_cheapest_card_is_named() -> None:
    places = tuple(place for place in _hired() if place.count == 1)
    question = asked("Qwen/Qwen2.5-0.5B", 16, places=places, methods=("lora-all",))
    estimate: Estimate = recommend(question).choices[0].estimate
    paid = (estimate.cost.usd_per_hour or 0) / estimate.time.samples_per_s
    for place in places[::3]:
        other = first_choice(replace(question, places=(place,)))
        if other:
            assert paid <= (other.cost.usd_per_hour or 0) / other.time.samples_per_s * 1.0001


def test_old_cards_are_asked_in_fp16() -> None:
    question = asked("Qwen/Qwen2.5-0.5B", 16, places=named(find_gpu("t4")))
    estimate = recommend(question).choices[0].estimate
    assert estimate.run.training.dtype == "fp16"
