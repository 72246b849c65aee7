"""Search methods, micro-batches and checkpointing for what fits, and rank it with reasons.

Per method the largest micro-batch that fits is taken, without checkpointing and with it, and the
faster of the two is kept; the best of them are worked out in full. Ranking follows the
recommendations of Lialin et al. (arXiv 2303.15647) by tier, then throughput; evidence from later
comparisons is not weighed yet.
"""

from __future__ import annotations

from peftadvisor.advisor.estimating import from_simulated, variant_of
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.question import ALL, Choice, Question, Recommendation, Rejection
from peftadvisor.advisor.searching import Search, memory_limit, search, smaller
from peftadvisor.data.recommendations import load_recommendations
from peftadvisor.methods import COMMON, find_method, method_names
from peftadvisor.methods.base import Method
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress, obtain
from peftadvisor.specs import RunSpec
from peftadvisor.units import format_bytes

FIRST_TIER = frozenset({"R1", "R2", "R9", "R20"})
LAST_TIER = frozenset({"R10", "R11", "R12", "R21"})


def recommend(question: Question, progress: Progress | None = None) -> Recommendation:
    """What fits, best first, and what does not, with reasons.

    Raises:
        UsageError: an unknown method is named, or nothing can be predicted.
    """
    everything = question.methods == ALL
    names = method_names() if everything else question.methods or COMMON
    searches = search(question, [find_method(name) for name in names], progress)
    promising = sorted((found for found in searches if found.fitting), key=_promise)
    answers: list[Choice | Rejection] = [
        _rejected(question, found) for found in searches if not found.fitting
    ]
    named = question.methods and not everything
    wanted = len(promising) if named else question.top
    while promising and sum(isinstance(answer, Choice) for answer in answers) < wanted:
        missing = wanted - sum(isinstance(answer, Choice) for answer in answers)
        batch, promising = promising[:missing], promising[missing:]
        answers += map_forked(lambda found: _answer(question, found), batch)
    choices = [answer for answer in answers if isinstance(answer, Choice)]
    return Recommendation(
        question=question,
        choices=tuple(sorted(choices, key=_rank)),
        rejected=tuple(answer for answer in answers if isinstance(answer, Rejection)),
        further=tuple(found.method for found in promising),
        notes=_notes(question),
    )


def _answer(question: Question, found: Search) -> Choice | Rejection:
    """The fastest candidate that fits when its allocations are replayed, else why none does."""
    method = find_method(found.method)
    for candidate in found.fitting:
        estimate = _fitting(question, candidate.run)
        if estimate:
            choice = Choice(
                estimate=estimate,
                score_reasons=_why(method, estimate.run),
                citations=_citations(method),
            )
            return _within_budget(question, choice)
    return _rejected(question, found)


def _fitting(question: Question, run: RunSpec | None) -> Estimate | None:
    """The run, or the same with the largest smaller micro-batch that fits when replayed."""
    limit = memory_limit(question)
    while run:
        simulated = obtain(variant_of(run), exact=False)
        estimate = from_simulated(run, simulated, question.budget)
        if estimate.verdict == "fits" and estimate.memory.device_peak_bytes <= limit:
            return estimate
        run = smaller(run)
    return None


def _rejected(question: Question, found: Search) -> Rejection:
    """Why nothing fits: the model cannot take the method, or by how much the least is too large."""
    least, limit = found.least, memory_limit(question)
    reason, over = found.refusal, None
    if least is not None:
        how = f"micro-batch {least.run.training.micro_batch_size}"
        how += " with gradient checkpointing" if _checkpoints(least.run) else ""
        needed, there = format_bytes(least.device_bytes), format_bytes(limit)
        reason = f"needs at least {needed} at {how}; {there} are there"
        over = max(0, least.device_bytes - limit)
        if not over:
            reason += f", and more than {question.budget.max_oom_risk:.0%} risk of running out"
    return Rejection(estimate=None, method=found.method, reason=reason, over_by_bytes=over)


def _within_budget(question: Question, choice: Choice) -> Choice | Rejection:
    cost, budget = choice.estimate.cost, question.budget
    limits = (
        ("hours", cost.hours_total, budget.max_hours),
        ("USD", cost.usd_total, budget.max_usd),
    )
    for unit, needed, allowed in limits:
        if needed is not None and allowed is not None and needed > allowed:
            return Rejection(
                estimate=choice.estimate,
                method=choice.estimate.run.method.name,
                reason=f"fits, but takes {needed:.1f} {unit} of the {allowed:g} allowed",
                over_by_bytes=None,
            )
    return choice


def _checkpoints(run: RunSpec) -> bool:
    return run.training.gradient_checkpointing != "none"


def _promise(found: Search) -> tuple[int, float]:
    """The rank that the fastest candidate would take if it were chosen."""
    training = found.fitting[0].run.training
    samples = training.micro_batch_size * training.gradient_accumulation_steps
    return _tier(find_method(found.method)), -samples / found.fitting[0].step_s


def _rank(choice: Choice) -> tuple[int, float]:
    method = find_method(choice.estimate.run.method.name)
    return _tier(method), -choice.estimate.time.samples_per_s


def _tier(method: Method) -> int:
    rules = set(method.rules)
    return 0 if rules & FIRST_TIER else 2 if rules & LAST_TIER else 1


def _citations(method: Method) -> tuple[str, ...]:
    known = load_recommendations()
    return tuple(f"{rule} ({known[rule].confidence})" for rule in method.rules if rule in known)


def _why(method: Method, run: RunSpec) -> tuple[str, ...]:
    known = load_recommendations()
    fit = f"micro-batch {run.training.micro_batch_size} fits"
    fit += " with gradient checkpointing" if _checkpoints(run) else ""
    return (fit, *(known[rule].statement for rule in method.rules if rule in known))


def _notes(question: Question) -> tuple[str, ...]:
    notes = [
        "ranking: recommendations of arXiv 2303.15647 first, then throughput; no accuracy is "
        "predicted for your task",
    ]
    if question.effective_batch_size % question.gpus:
        notes.append("the effective batch is no multiple of the number of GPUs: rounded down")
    return tuple(notes)
