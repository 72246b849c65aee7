"""Search methods, settings and places for what fits, and rank it with reasons.

Candidates are ordered by one rule that no limit enters (the method's tier, then ``preference``),
so that more memory, time or money never gives a worse first choice. Each method's candidates are
put to the replay in that order until one holds.
"""

from __future__ import annotations

import dataclasses

from peftadvisor.advisor.answering import choice_of, notes, pilot, with_pareto
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.picking import picks
from peftadvisor.advisor.question import ALL, Choice, Question, Recommendation
from peftadvisor.advisor.ranking import tier
from peftadvisor.advisor.refusing import rejected, ways_out
from peftadvisor.advisor.searching import Search, preference, search
from peftadvisor.advisor.verifying import first_that_holds
from peftadvisor.advisor.weighing import Candidate
from peftadvisor.methods import COMMON, find_method, method_names
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress

Key = tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """What the replay leaves of a method's search: a choice with its rank, or nothing."""

    found: Search
    key: Key = ()
    choice: Choice | None = None


def recommend(question: Question, progress: Progress | None = None) -> Recommendation:
    """What fits, best first, and what does not, with reasons.

    Raises:
        UsageError: an unknown method is named, or nothing can be predicted.
    """
    searches = _searched(question, progress)
    fitting = sorted((s for s in searches if s.fitting), key=lambda s: _promise(question, s))
    named = question.methods and question.methods != ALL
    answers, further = _answers(question, fitting, len(fitting) if named else question.top)
    chosen = sorted((a for a in answers if a.choice), key=lambda answer: answer.key)
    choices = with_pareto([answer.choice for answer in chosen if answer.choice])
    failed = {answer.found.method.name for answer in answers if not answer.choice}
    out = [s for s in searches if not s.fitting or s.method.name in failed]
    return Recommendation(
        question=question,
        choices=tuple(choices),
        picks=picks(question, choices, searches),
        rejected=tuple(rejected(question, found) for found in out),
        further=tuple(found.method.name for found in further),
        ways_out=() if choices else ways_out(question, searches),
        pilot=pilot(question, choices),
        notes=notes(question),
        weighed=sum(found.weighed for found in searches),
    )


def first_choice(question: Question) -> Estimate | None:
    """The estimate of what ``recommend`` puts first, and nothing else; None where nothing fits."""
    searches = (found for found in _searched(question, None) if found.fitting)
    fitting = sorted(searches, key=lambda found: _promise(question, found))
    answers, _ = _answers(question, fitting, wanted=1)
    held = [answer for answer in answers if answer.choice]
    best = min(held, key=lambda answer: answer.key, default=None)
    return best.choice.estimate if best and best.choice else None


def _searched(question: Question, progress: Progress | None) -> list[Search]:
    names = question.methods or COMMON
    if question.methods == ALL:
        names = method_names()
    return search(question, [find_method(name) for name in names], progress)


def _answers(
    question: Question, promising: list[Search], wanted: int
) -> tuple[list[_Answer], list[Search]]:
    """The best methods worked out in full, and those left: none of them can be the first choice."""
    answers: list[_Answer] = []
    while promising:
        keys = [answer.key for answer in answers if answer.choice]
        missing = wanted - len(keys)
        if missing <= 0 and min(keys) <= _promise(question, promising[0]):
            break
        batch, promising = promising[: max(1, missing)], promising[max(1, missing) :]
        answers += map_forked(lambda found: _answer(question, found), batch)
    return answers, promising


def _promise(question: Question, found: Search) -> Key:
    return _key(question, found.fitting[0])


def _key(question: Question, candidate: Candidate) -> Key:
    return (tier(question, candidate.setting.method), *preference(question, candidate))


def _answer(question: Question, found: Search) -> _Answer:
    """The first candidate that fits when its allocations are replayed, else none."""
    held = first_that_holds(question, found.fitting)
    if held is None:
        return _Answer(found)
    candidate, estimate = held
    return _Answer(found, _key(question, candidate), choice_of(question, estimate))
