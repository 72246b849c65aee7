"""What does not fit: by how much, and what would have to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from peftadvisor.advisor.question import Question, Rejection
from peftadvisor.advisor.searching import Limit, Search, hours, needed, usd
from peftadvisor.advisor.weighing import Candidate, most_bytes
from peftadvisor.units import format_bytes


def rejected(question: Question, found: Search) -> Rejection:
    """Why nothing of a method fits: it cannot be used, or what its best candidate exceeds."""
    least = found.least
    if least is None or found.refusal:
        return Rejection(
            estimate=None, method=found.method.name, reason=found.refusal, over_by_bytes=None
        )
    over = max(0, least.device_bytes - (question.budget.max_memory_bytes or _usable(least)))
    return Rejection(
        estimate=None,
        method=found.method.name,
        reason=_beyond(question, found) or _memory_reason(question, least, over),
        over_by_bytes=over if needed(question, "memory", least) > 1 or found.fitting else None,
    )


def ways_out(question: Question, searches: Sequence[Search]) -> tuple[str, ...]:
    """Per limit, the candidate that would do if that limit alone were as wide as it needs."""
    said = []
    for limit, words in _WORDS.items():
        near = [found.nearest[limit] for found in searches if limit in found.nearest]
        if near:
            best = min(near, key=lambda candidate: needed(question, limit, candidate))
            said.append(f"{words(question, best)}: {_described(best)}")
    return tuple(said)


def _beyond(question: Question, found: Search) -> str:
    """The limit, other than memory, that a method's nearest candidate exceeds."""
    for limit in ("usd", "hours", "stored"):
        candidate = found.nearest.get(limit)
        if candidate is not None:
            return f"fits in memory, but {_WORDS[limit](question, candidate)}"
    return ""


def _memory_reason(question: Question, least: Candidate, over: int) -> str:
    limit = question.budget.max_memory_bytes or _usable(least)
    how = f"micro-batch {least.micro_batch_size}"
    how += (
        " with gradient checkpointing"
        if least.setting.training.gradient_checkpointing != "none"
        else ""
    )
    where = f" on {least.place.gpu.id}" if len(question.places) > 1 else ""
    reason = (
        f"needs at least {format_bytes(least.device_bytes)} at {how}{where}; "
        f"{format_bytes(limit)} are there"
    )
    if over:
        return reason
    return f"{reason}, and more than {question.budget.max_oom_risk:.0%} risk of running out"


def _usable(candidate: Candidate) -> int:
    return candidate.place.gpu.usable_bytes


def _described(candidate: Candidate) -> str:
    place, training = candidate.place, candidate.setting.training
    cards = f"{place.count} × " if place.count > 1 else ""
    recompute = ", checkpointing" if training.gradient_checkpointing != "none" else ""
    name = candidate.setting.method.name
    return f"{name} on {cards}{place.gpu.id}, micro-batch {candidate.micro_batch_size}{recompute}"


def _memory_words(question: Question, candidate: Candidate) -> str:
    have, need = most_bytes(question, candidate), candidate.device_bytes
    return f"a GPU with {format_bytes(need)} where {format_bytes(have)} may be taken"


_WORDS: Mapping[Limit, Callable[[Question, Candidate], str]] = {
    "usd": lambda q, c: f"it takes {usd(q, c) or 0:.2f} USD of the {q.budget.max_usd:g} allowed",
    "hours": lambda q, c: (
        f"it takes {hours(q, c) or 0:.1f} hours of the {q.budget.max_hours:g} allowed"
    ),
    "memory": _memory_words,
    "stored": lambda q, c: (
        f"it stores {format_bytes(c.stored_bytes)} of the "
        f"{format_bytes(q.needs.max_stored_bytes or 0)} allowed"
    ),
}
