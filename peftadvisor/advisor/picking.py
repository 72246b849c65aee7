"""The named answers: safest default, cheapest, smallest in memory; each with why and why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from peftadvisor.advisor.answering import choice_of
from peftadvisor.advisor.changing import changes
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.question import Choice, Pick, Question, Role
from peftadvisor.advisor.ranking import tier
from peftadvisor.advisor.searching import Search
from peftadvisor.advisor.verifying import first_that_holds
from peftadvisor.advisor.weighing import Candidate
from peftadvisor.units import format_bytes

TRUSTED = 2
"""The last tier from which cheapest and smallest are taken: nothing speaks against those."""


def picks(
    question: Question, choices: Sequence[Choice], searches: Sequence[Search]
) -> tuple[Pick, ...]:
    """One answer per role; a choice that holds several is given once, under the first."""
    if not choices:
        return ()
    safest = choices[0]
    trusted = [found for found in searches if tier(question, found.method) <= TRUSTED]
    others = (
        ("cheapest", _best(question, trusted, _money(question))),
        ("smallest", _best(question, trusted, attrgetter("device_bytes"))),
    )
    found: list[tuple[Role, Choice]] = [("safest", safest)]
    for role, choice in others:
        known = [other.estimate.run for _, other in found]
        if choice is not None and choice.estimate.run not in known:
            found.append((role, choice))  # type: ignore[arg-type]
    return tuple(map_forked(lambda pick: _pick(question, *pick, choices), found))


def _money(question: Question) -> Callable[[Candidate], float]:
    """Dollars a sample where every place has a price, else seconds."""
    if all(place.usd_per_hour is not None for place in question.places):
        return lambda candidate: candidate.usd_per_sample or 0.0
    return lambda candidate: 1 / candidate.samples_per_s


def _best(
    question: Question, searches: Sequence[Search], key: Callable[[Candidate], float]
) -> Choice | None:
    ordered = sorted((c for found in searches for c in _uncompromised(found)), key=key)
    answer = first_that_holds(question, ordered)
    return None if answer is None else choice_of(question, answer[1])


def _uncompromised(found: Search) -> list[Candidate]:
    """Those of a method's candidates that give up least: a small rank is no way to be cheap."""
    least = min((c.setting.concession for c in found.fitting), default=0)
    return [c for c in found.fitting if c.setting.concession == least]


def _pick(question: Question, role: Role, choice: Choice, choices: Sequence[Choice]) -> Pick:
    others = [c for c in choices if c.estimate.run.method.name != choice.estimate.run.method.name]
    return Pick(
        role=role,
        choice=choice,
        why=_WHY[role](choice, choices[0]),
        not_next=_not_next(choice, others[0]) if others else "no other method fits",
        limited_by=_limited_by(choice),
        changes=changes(question, choice, first=role == "safest"),
    )


def _safest(choice: Choice, _: Choice) -> str:
    evidence = choice.estimate.evidence
    said = "it is what other methods are compared with"
    if evidence.probability_at_least_lora is not None:
        said = f"published comparisons: {evidence.label}"
    elif evidence.label not in ("reference", "none"):
        said = f"published comparisons: {evidence.label}; {evidence.reason}"
    return f"{said}; {choice.estimate.oom_probability:.1%} risk of running out of memory"


def _cheapest(choice: Choice, safest: Choice) -> str:
    mine, other = choice.estimate, safest.estimate
    spent, known = mine.usd_per_sample, other.usd_per_sample
    unit = "money" if mine.cost.usd_per_hour is not None else "time"
    if spent is None or known is None:
        return f"least {unit} a sample of what nothing speaks against"
    share = f"{1 - spent / known:.0%} less {unit} a sample than {other.run.method.name}"
    return f"least {unit} of what nothing speaks against: {share}"


def _smallest(choice: Choice, safest: Choice) -> str:
    mine, other = (c.estimate.memory.device_peak_bytes for c in (choice, safest))
    return (
        f"least memory of what nothing speaks against: {format_bytes(mine)}, "
        f"{format_bytes(other - mine)} less than {safest.estimate.run.method.name}"
    )


_WHY: dict[Role, Callable[[Choice, Choice], str]] = {
    "safest": _safest,
    "cheapest": _cheapest,
    "smallest": _smallest,
}


def _not_next(choice: Choice, other: Choice) -> str:
    """What the next method would change, in memory, time and evidence."""
    mine, its = choice.estimate, other.estimate
    parts = [
        _more(its.time.samples_per_s / mine.time.samples_per_s),
        f"{its.memory.device_peak_bytes / mine.memory.device_peak_bytes - 1:+.0%} memory",
    ]
    evidence = its.evidence
    if evidence.probability_at_least_lora is not None:
        parts.append(
            f"{evidence.probability_at_least_lora:.2f} "
            f"[{evidence.low or 0:.2f}, {evidence.high or 1:.2f}] that it is as good as LoRA"
        )
    else:
        parts.append(f"evidence: {evidence.label}")
    return f"{its.run.method.name}: {', '.join(parts)}"


def _more(ratio: float) -> str:
    return f"{ratio:.1f} times as fast" if ratio >= 1 else f"{1 / ratio:.1f} times slower"


def _limited_by(choice: Choice) -> str:
    run, estimate = choice.estimate.run, choice.estimate
    bound = f"the step is bound by {estimate.time.bound}"
    if run.training.gradient_accumulation_steps == 1:
        return bound
    return f"micro-batch {run.training.micro_batch_size} is the fastest that fits; {bound}"
