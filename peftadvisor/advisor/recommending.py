"""Search methods, micro-batches and checkpointing for what fits, and rank it with reasons.

Per method the largest micro-batch that fits is taken, without checkpointing and with it, and the
faster of the two is kept. Ranking follows the recommendations of Lialin et al. (arXiv 2303.15647)
by tier, then throughput; evidence from later comparisons is not weighed yet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from peftadvisor.advisor.estimating import (
    from_simulated,
    variant_of,
    verdict,
    with_implied_quantization,
)
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.question import Choice, Question, Recommendation, Rejection
from peftadvisor.cost_model.memory import least_device_bytes, oom_probability
from peftadvisor.cost_model.time import step_seconds
from peftadvisor.data.recommendations import load_recommendations
from peftadvisor.errors import UnsupportedError
from peftadvisor.methods import METHODS, find_method
from peftadvisor.methods.base import Method
from peftadvisor.simulator.obtain import Progress, Simulated, obtain
from peftadvisor.specs import Checkpointing, MethodSpec, RunSpec
from peftadvisor.units import format_bytes

CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "non-reentrant")
FIRST_TIER = frozenset({"R1", "R2", "R9", "R20"})
LAST_TIER = frozenset({"R10", "R11", "R12", "R21"})


@dataclasses.dataclass(frozen=True, slots=True)
class _Candidate:
    """One setting of one method, with its quick lower bound of device memory."""

    run: RunSpec
    simulated: Simulated
    device_bytes: int


def recommend(question: Question, progress: Progress | None = None) -> Recommendation:
    """What fits, best first, and what does not, with reasons.

    Raises:
        UsageError: an unknown method is named, or nothing can be predicted.
    """
    names = question.methods or tuple(method.name for method in METHODS)
    searches = [_search(question, find_method(name), progress) for name in names]
    answers = map_forked(lambda search: _answer(question, search), searches)
    choices = [answer for answer in answers if isinstance(answer, Choice)]
    return Recommendation(
        question=question,
        choices=tuple(sorted(choices, key=_rank)),
        rejected=tuple(answer for answer in answers if isinstance(answer, Rejection)),
        notes=_notes(question),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Search:
    """What was found for one method: candidates, or why there are none."""

    method: Method
    candidates: tuple[_Candidate, ...] = ()
    refusal: str = ""


def _search(question: Question, method: Method, progress: Progress | None) -> _Search:
    if progress:
        progress(f"weighing {method.name}")
    try:
        return _Search(method, tuple(_fitting(question, method, progress)))
    except UnsupportedError as error:
        return _Search(method, refusal=str(error))


def _answer(question: Question, search: _Search) -> Choice | Rejection:
    """The fastest candidate that fits when its allocations are replayed, else why none does."""
    method = search.method
    if search.refusal:
        return Rejection(
            estimate=None, method=method.name, reason=search.refusal, over_by_bytes=None
        )
    limit = _limit(question)
    inside = [c for c in search.candidates if _accepted(c.device_bytes, question, limit)]
    for candidate in sorted(inside, key=_slowness):
        estimate = from_simulated(candidate.run, candidate.simulated, question.budget)
        if estimate.verdict == "fits" and estimate.memory.device_peak_bytes <= limit:
            choice = Choice(
                estimate=estimate,
                score_reasons=_why(method, candidate),
                citations=_citations(method),
            )
            return _within_budget(question, method, choice)
    return _too_large(question, search)


def _limit(question: Question) -> int:
    usable = question.gpu.usable_bytes
    return min(usable, question.budget.max_memory_bytes or usable)


def _too_large(question: Question, search: _Search) -> Rejection:
    limit = _limit(question)
    least = min(search.candidates, key=lambda c: c.device_bytes)
    training = least.run.training
    how = f"micro-batch {training.micro_batch_size}"
    how += " with gradient checkpointing" if _checkpoints(least.run) else ""
    needed, there = format_bytes(least.device_bytes), format_bytes(limit)
    reason = f"needs at least {needed} at {how}; {there} are there"
    if least.device_bytes <= limit:
        reason += f", and more than {question.budget.max_oom_risk:.0%} risk of running out"
    return Rejection(
        estimate=None,
        method=search.method.name,
        reason=reason,
        over_by_bytes=max(0, least.device_bytes - limit),
    )


def _fitting(question: Question, method: Method, progress: Progress | None) -> Iterator[_Candidate]:
    """Per checkpointing mode the largest micro-batch that may fit, else micro-batch 1."""
    refused: UnsupportedError | None = None
    for checkpointing in CHECKPOINTING:
        try:
            yield _largest(question, method, checkpointing, progress)
        except UnsupportedError as error:
            refused = refused or error
            if checkpointing == "none":
                raise
    return


def _largest(
    question: Question, method: Method, checkpointing: Checkpointing, progress: Progress | None
) -> _Candidate:
    per_gpu = max(1, question.effective_batch_size // question.gpus)
    candidate = None
    for micro in sorted(_divisors(per_gpu), reverse=True):
        training = dataclasses.replace(
            question.training,
            micro_batch_size=micro,
            gradient_accumulation_steps=per_gpu // micro,
            gradient_checkpointing=checkpointing,
        )
        run = with_implied_quantization(
            RunSpec(
                model=question.model,
                method=MethodSpec(name=method.name),
                training=training,
                gpu=question.gpu,
                gpus=question.gpus,
            )
        )
        simulated = obtain(variant_of(run), exact=False, progress=progress)
        candidate = _Candidate(run, simulated, least_device_bytes(simulated, question.gpu))
        if _accepted(candidate.device_bytes, question, question.gpu.usable_bytes):
            return candidate
    assert candidate is not None
    return candidate


def _accepted(device_bytes: int, question: Question, limit: int) -> bool:
    risk = oom_probability(device_bytes, question.gpu)
    return device_bytes <= limit and verdict(risk, question.budget.max_oom_risk) == "fits"


def _within_budget(question: Question, method: Method, choice: Choice) -> Choice | Rejection:
    cost, budget = choice.estimate.cost, question.budget
    limits = (
        ("hours", cost.hours_total, budget.max_hours),
        ("USD", cost.usd_total, budget.max_usd),
    )
    for unit, needed, allowed in limits:
        if needed is not None and allowed is not None and needed > allowed:
            return Rejection(
                estimate=choice.estimate,
                method=method.name,
                reason=f"fits, but takes {needed:.1f} {unit} of the {allowed:g} allowed",
                over_by_bytes=None,
            )
    return choice


def _slowness(candidate: _Candidate) -> float:
    uses = candidate.simulated.kernel_uses()
    return sum(step_seconds(uses, candidate.run.training, candidate.run.gpu).values())


def _checkpoints(run: RunSpec) -> bool:
    return run.training.gradient_checkpointing != "none"


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _rank(choice: Choice) -> tuple[int, float]:
    method = find_method(choice.estimate.run.method.name)
    return _tier(method), -choice.estimate.time.samples_per_s


def _tier(method: Method) -> int:
    rules = set(method.rules)
    return 0 if rules & FIRST_TIER else 2 if rules & LAST_TIER else 1


def _citations(method: Method) -> tuple[str, ...]:
    known = load_recommendations()
    return tuple(f"{rule} ({known[rule].confidence})" for rule in method.rules if rule in known)


def _why(method: Method, candidate: _Candidate) -> tuple[str, ...]:
    known = load_recommendations()
    training = candidate.run.training
    fit = f"micro-batch {training.micro_batch_size} fits"
    fit += " with gradient checkpointing" if _checkpoints(candidate.run) else ""
    return (fit, *(known[rule].statement for rule in method.rules if rule in known))


def _notes(question: Question) -> tuple[str, ...]:
    notes = [
        "ranking: recommendations of arXiv 2303.15647 first, then throughput; no accuracy is "
        "predicted for your task",
        "time and intervals are not calibrated on measurements yet",
    ]
    if question.effective_batch_size % question.gpus:
        notes.append("the effective batch is no multiple of the number of GPUs: rounded down")
    return tuple(notes)
