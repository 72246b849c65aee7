"""Per method, every candidate that the quick bound lets through, the best first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Literal

from peftadvisor.advisor.estimating import samples_of
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.places import Place
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.space import Setting, on_file, settings
from peftadvisor.advisor.weighing import Candidate, most_bytes, weigh
from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.simulator.obtain import Progress

Limit = Literal["memory", "hours", "usd", "stored"]

EASE = 0.75
"""Share of what may be taken, by the quick bound, up to which the replay surely agrees."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found for one method.

    ``fitting`` are candidates within all limits by the quick bound, the best first; ``least`` the
    one that takes least memory; ``refusal`` is why there is none. ``nearest`` is, per limit, the
    candidate that is within all others and needs least of it. ``weighed`` counts candidates.
    """

    method: Method
    fitting: tuple[Candidate, ...] = ()
    least: Candidate | None = None
    nearest: Mapping[Limit, Candidate] = dataclasses.field(default_factory=dict)
    refusal: str = ""
    weighed: int = 0


def search(
    question: Question, methods: Sequence[Method], progress: Progress | None
) -> list[Search]:
    """Weigh every method at every place; recordings that are missing are made.

    More GPUs are tried only where fewer do not do.
    """
    found: list[Search] = []
    for places in _by_count(question.places):
        asked = dataclasses.replace(question, places=places)
        if all(_on_file(asked, method) for method in methods):
            found = map_forked(partial(_search, asked, progress=None), methods)
        else:
            found = [_search(asked, method, progress=progress) for method in methods]
        if any(one.fitting for one in found):
            break
    return found


def preference(question: Question, candidate: Candidate) -> tuple[float, ...]:
    """What is given up, then dollars or seconds per sample; then memory, to decide."""
    spent = candidate.usd_per_sample if question.by_cost else None
    per_sample = 1 / candidate.samples_per_s if spent is None else spent
    return candidate.setting.concession, per_sample, candidate.device_bytes


def needed(question: Question, limit: Limit, candidate: Candidate) -> float:
    """What a candidate takes of a limit, over what is allowed; 0 where there is no limit."""
    return _NEEDED[limit](question, candidate)


def _memory(question: Question, candidate: Candidate) -> float:
    return candidate.device_bytes / most_bytes(question, candidate)


def hours(question: Question, candidate: Candidate) -> float | None:
    """Of the whole job; None where its size is not known."""
    samples = samples_of(candidate.run(question), question.budget, question.job)
    return None if samples is None else samples / candidate.samples_per_s / 3600


def usd(question: Question, candidate: Candidate) -> float | None:
    """Of the whole job; None where its size, or a price, is not known."""
    took, hourly = hours(question, candidate), candidate.place.usd_per_hour
    return None if took is None or hourly is None else took * hourly


def _share(
    spent_by: Callable[[Question, Candidate], float | None],
    question: Question,
    candidate: Candidate,
    allowed: float | None,
) -> float:
    """What is spent over what is allowed; infinite where it is limited and not known."""
    if allowed is None:
        return 0.0
    spent = spent_by(question, candidate)
    return float("inf") if spent is None else spent / allowed


_NEEDED: Mapping[Limit, Callable[[Question, Candidate], float]] = {
    "memory": _memory,
    "hours": lambda q, c: _share(hours, q, c, q.budget.max_hours),
    "usd": lambda q, c: _share(usd, q, c, q.budget.max_usd),
    "stored": lambda q, c: _share(lambda _, c: c.stored_bytes, q, c, q.needs.max_stored_bytes),
}


def _by_count(places: tuple[Place, ...]) -> list[tuple[Place, ...]]:
    counts = sorted({place.count for place in places})
    return [tuple(place for place in places if place.count == count) for count in counts]


def _on_file(question: Question, method: Method) -> bool:
    """Whether the method was recorded before, so that searching takes milliseconds."""
    return all(on_file(question, setting) for setting in settings(question, method))


def _search(question: Question, method: Method, *, progress: Progress | None) -> Search:
    refusal = question.needs.missing(method)
    if refusal:
        return Search(method=method, refusal=refusal)
    if progress:
        progress(f"weighing {method.name}")
    try:
        every, shares = _candidates(question, method, progress)
    except UnsupportedError as error:
        return Search(method=method, refusal=str(error))
    inside = [c for c, share in zip(every, shares, strict=True) if max(share.values()) <= 1]
    inside.sort(key=lambda candidate: preference(question, candidate))
    return Search(
        method=method,
        fitting=tuple(inside),
        least=min(every, key=attrgetter("device_bytes")),
        nearest={} if inside else _nearest(every, shares),
        weighed=len(every),
    )


def _candidates(
    question: Question, method: Method, progress: Progress | None
) -> tuple[list[Candidate], list[dict[Limit, float]]]:
    """Of all settings, until one fits with ease: what gives up more is then not needed.

    Beside each, what it takes of every limit.
    """
    every: list[Candidate] = []
    shares: list[dict[Limit, float]] = []
    for _, level in groupby(settings(question, method), key=attrgetter("concession")):
        for setting in level:
            every += _weighed(question, setting, progress, first=not every)
        for candidate in every[len(shares) :]:
            shares.append({limit: needed(question, limit, candidate) for limit in _NEEDED})
        if any(map(_fits_with_ease, shares)):
            break
    return every, shares


def _fits_with_ease(shares: Mapping[Limit, float]) -> bool:
    return shares["memory"] <= EASE and max(shares.values()) <= 1


def _weighed(
    question: Question, setting: Setting, progress: Progress | None, *, first: bool
) -> list[Candidate]:
    """Candidates of a setting; none where only others can be had."""
    try:
        return weigh(question, setting, progress)
    except UnsupportedError:
        if first:
            raise
        return []


def _nearest(
    every: Sequence[Candidate], shares: Sequence[Mapping[Limit, float]]
) -> dict[Limit, Candidate]:
    found: dict[Limit, Candidate] = {}
    for limit in _NEEDED:
        within = [
            (share[limit], number)
            for number, share in enumerate(shares)
            if all(share[other] <= 1 for other in _NEEDED if other != limit)
        ]
        if within:
            found[limit] = every[min(within)[1]]
    return found
