"""Candidates that hold become choices: estimate, reasons, findings, and what is optimal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from peftadvisor.advisor.advised import Advised, Finding
from peftadvisor.advisor.asked import asked_about
from peftadvisor.advisor.conflicts import conflicts
from peftadvisor.advisor.findings import findings
from peftadvisor.advisor.hyperparameters import method_settings, training_settings
from peftadvisor.advisor.learning_rates import rate_of
from peftadvisor.advisor.pilot import PilotPlan, pilot_plan
from peftadvisor.advisor.question import Choice, Question
from peftadvisor.data.recommendations import load_recommendations
from peftadvisor.methods import find_method
from peftadvisor.methods.base import Method
from peftadvisor.profiles import Estimate

UNKNOWN = float("inf")


def choice_of(question: Question, estimate: Estimate) -> Choice:
    """An estimate with why it stands where it does."""
    method = find_method(estimate.run.method.name)
    advised = _advised(question, method, estimate)
    return Choice(
        estimate=estimate,
        score_reasons=_why(method, estimate),
        citations=_citations(method),
        advised=advised,
        findings=_findings(question, method, estimate, rate_of(advised)),
    )


def _advised(question: Question, method: Method, estimate: Estimate) -> tuple[Advised, ...]:
    """The method's own hyperparameters as they are run, and those of the training."""
    settings = method.settings(estimate.run.method)
    own = [a for a in method_settings(method, question.model, question.job) if a.name in settings]
    training = training_settings(
        method,
        question.model,
        question.job,
        effective_batch_size=question.effective_batch_size,
        trained_rank=_whole(settings.get("rank")),
        alpha=settings.get("alpha"),
    )
    ran = estimate.run.training
    kept = [a for a in training if a.name not in _RUN or a.value == getattr(ran, a.name)]
    return (*(a for a in own if settings[a.name] == a.value), *kept)


_RUN = frozenset({"optimizer", "max_grad_norm"})
"""Advice that the estimate must have been made with."""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _findings(
    question: Question, method: Method, estimate: Estimate, learning_rate: float | None
) -> tuple[Finding, ...]:
    """What is published of the method for such a run, and where the settings conflict."""
    run = estimate.run
    asked = asked_about(run.model, run.training, question.job)
    training = dataclasses.replace(
        run.training,
        gradient_accumulation_steps=run.training.gradient_accumulation_steps * run.gpus,
    )
    clashes = conflicts(
        method,
        dict(run.method.settings),
        learning_rate=learning_rate,
        job=question.job,
        model=run.model,
        training=training,
    )
    return (*findings(method.name, asked), *clashes)


def with_pareto(choices: Sequence[Choice]) -> list[Choice]:
    """The same, with those marked that no other beats in one respect and equals in all others."""
    estimates = [choice.estimate for choice in choices]
    return [
        dataclasses.replace(choice, pareto=not dominated(choice.estimate, estimates))
        for choice in choices
    ]


def dominated(estimate: Estimate, others: Sequence[Estimate]) -> bool:
    """Whether another is better in one respect and worse in none."""
    return any(_dominates(_aims(other), _aims(estimate)) for other in others)


def notes(question: Question) -> tuple[str, ...]:
    """What the user should know of the answer as a whole."""
    said = [
        "ranking: published comparisons and recommendations of arXiv 2303.15647 first, then "
        f"{'dollars' if question.by_cost else 'seconds'} per sample; no accuracy is predicted for "
        "your task",
    ]
    counts = {place.count for place in question.places}
    if any(question.effective_batch_size % count for count in counts):
        said.append("the effective batch is no multiple of the number of GPUs: rounded down")
    return tuple(said)


def pilot(question: Question, choices: Sequence[Choice]) -> PilotPlan | None:
    """A cheap check of the first choice's learning rate; None where no rate is sourced."""
    rate = rate_of(choices[0].advised) if choices else None
    if rate is None:
        return None
    return pilot_plan(rate, question.job, test_examples=question.test_examples)


def _aims(estimate: Estimate) -> tuple[float, ...]:
    """Memory, time and money per sample, and evidence: less is better in each."""
    money = UNKNOWN if estimate.usd_per_sample is None else estimate.usd_per_sample
    least = estimate.evidence.low or 0.0
    return estimate.memory.device_peak_bytes, 1 / estimate.time.samples_per_s, money, -least


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _citations(method: Method) -> tuple[str, ...]:
    known = load_recommendations()
    return tuple(f"{rule} ({known[rule].confidence})" for rule in method.rules if rule in known)


def _why(method: Method, estimate: Estimate) -> tuple[str, ...]:
    training, known = estimate.run.training, load_recommendations()
    fit = f"micro-batch {training.micro_batch_size} fits"
    fit += " with gradient checkpointing" if training.gradient_checkpointing != "none" else ""
    return (fit, *(known[rule].statement for rule in method.rules if rule in known))
