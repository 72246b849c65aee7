"""Every rule on a run: one run that fires it, and one close by that does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.advisor.advised import Finding
from peftadvisor.advisor.conflicts import PREDICATES, conflicts
from peftadvisor.advisor.hyperparameters import method_settings, training_settings
from peftadvisor.data.models import find_model
from peftadvisor.data.run_rules import load_run_rules
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import Job, TrainingSpec
from tests.run_examples import EXAMPLES, LLAMA, Run, run


def findings(run: Run) -> tuple[Finding, ...]:
    return conflicts(
        find_method(run["method"]),
        run["settings"],
        learning_rate=run["rate"],
        job=run["job"],
        model=find_model(run["model"]),
        training=run["training"],
    )


def fired(run: Run) -> set[str]:
    return {finding.rule for finding in findings(run)}


PAIRS = [(rule, *pair) for rule, pairs in EXAMPLES.items() for pair in pairs]


def test_every_rule_has_a_predicate_and_examples() -> None:
    assert list(load_run_rules()) == list(PREDICATES) == list(EXAMPLES)


@pytest.mark.parametrize(("rule", "bad", "good"), PAIRS, ids=[rule for rule, _, _ in PAIRS])
def test_rules_fire_where_they_should_and_not_beside(rule: str, bad: Run, good: Run) -> None:
    assert rule in fired(bad)
    assert rule not in fired(good)


def test_a_finding_says_what_the_table_says() -> None:
    (found,) = (f for f in findings(run("dora", set_dropout=0.1)) if f.rule == "dora-dropout")
    row = load_run_rules()["dora-dropout"]
    assert (found.kind, found.statement, found.source, found.confidence) == (
        "warns",
        row.statement,
        row.source,
        "high",
    )


def test_what_is_not_said_is_not_judged() -> None:
    assert fired(run("lora-all", untold=True)) == set()
    assert fired(run("full", untold=True)) == set()


@hypothesis_settings(deadline=None)
@given(
    method=st.sampled_from(method_names()),
    model=st.sampled_from([LLAMA, "Qwen/Qwen3-8B", "mistralai/Mistral-7B-v0.1"]),
    task=st.sampled_from(["instruction", "reasoning", "code", None]),
    examples=st.integers(5000, 10**6),
)
def test_advice_followed_meets_no_warning(
    method: str, model: str, task: Any, examples: int
) -> None:
    """Settings and learning rate as advised: only what no setting can mend is left to be said."""
    chosen, spec = find_method(method), find_model(model)
    job = Job(task=task, examples=examples, learned_per_example=100, epochs=1)
    settings = {a.name: a.value for a in method_settings(chosen, spec, job)}
    rank, alpha = settings.get("rank"), settings.get("alpha")
    rates = training_settings(
        chosen,
        spec,
        job,
        effective_batch_size=32,
        trained_rank=rank if isinstance(rank, int) else None,
        alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
    )
    rate = next((a.value for a in rates if a.name == "learning_rate"), None)
    found = fired(
        {
            "method": method,
            "model": model,
            "rate": rate,
            "settings": settings,
            "job": job,
            "training": TrainingSpec(micro_batch_size=32),
        }
    )
    allowed = {"rate-unsourced", "prompt-small-model", "alpha-below-rank", "adalora-steps"}
    allowed |= {"capacity-short"} if rank in (64, 128, 256) else set()
    assert found <= allowed
