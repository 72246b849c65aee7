"""Reports worked out afresh: an answer as its JSON tells it, and the study of its first run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from peftadvisor.advisor import comparing, estimating, recommending
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.stops import Files
from peftadvisor.advisor.studying import Study, Swept, study, sweep
from peftadvisor.integrations.answers import Answer, Story, answer
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress
from peftadvisor.specs import Budget, RunSpec

SOURCE = "worked out for this report"


class Plain(Protocol):
    """What can be told as plain data."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        ...


def told(value: Plain) -> Answer:
    """A value by way of its JSON, so that a report of it and of its file are the same."""
    return answer(json.loads(json.dumps(value.to_dict())), "the answer")


def story_of_run(run: RunSpec, budget: Budget, say: Progress, swept: Swept | None = None) -> Story:
    """One estimate with its study; with ``swept`` the sweep of that alone.

    Raises:
        UsageError: the run cannot exist, or cannot be predicted with what is installed.
    """
    estimate = estimating.estimate(run, budget=budget, progress=say)
    say("studying the run")
    if swept is None:
        return Story(source=SOURCE, answer=told(estimate), study=study(estimate, budget))
    run = estimate.run
    points = sweep(run, swept, budget, Files())
    only = Study(method=run.method.name, sweeps=(points,), missing=("all but the sweep",))
    return Story(source=SOURCE, answer=told(estimate), study=only)


def story_of_methods(run: RunSpec, methods: Sequence[str], budget: Budget, say: Progress) -> Story:
    """A comparison, with the study of the first method that there is an estimate of.

    Raises:
        UsageError: no method can be estimated.
    """
    comparison = comparing.compare(run, methods, budget=budget, progress=say)
    estimates = [one.estimate for one in comparison.methods if one.estimate]
    return Story(source=SOURCE, answer=told(comparison), study=_study(estimates, budget, say))


def story_of_question(question: Question, say: Progress) -> Story:
    """A recommendation, with the study of its first choice.

    Raises:
        UsageError: the question cannot be answered.
    """
    recommendation = recommending.recommend(question, say)
    estimates = [choice.estimate for choice in recommendation.choices]
    found = _study(estimates, question.budget, say)
    return Story(source=SOURCE, answer=told(recommendation), study=found)


def _study(estimates: Sequence[Estimate], budget: Budget, say: Progress) -> Study | None:
    if not estimates:
        return None
    say("studying the first of them")
    return study(estimates[0], budget, estimates[1:])
