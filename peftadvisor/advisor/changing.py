"""What would change an answer: longer samples, a smaller GPU, full fine-tuning within reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from peftadvisor.advisor.estimating import from_simulated, variant_of
from peftadvisor.advisor.places import Place, for_hire
from peftadvisor.advisor.question import Choice, Needs, Question
from peftadvisor.advisor.space import settings
from peftadvisor.advisor.verifying import first_that_holds, holds
from peftadvisor.advisor.weighing import Candidate, most_bytes, most_bytes_on, weigh
from peftadvisor.cost_model.memory import least_device_bytes
from peftadvisor.cost_model.sharding import shard
from peftadvisor.data.models import max_positions
from peftadvisor.errors import UsageError
from peftadvisor.methods import find_method
from peftadvisor.methods.base import Method
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import obtain
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.regimes import regime_of
from peftadvisor.specs import Budget, RunSpec
from peftadvisor.units import format_bytes

STEP = 64
"""Lengths that are tried are multiples of so many tokens,"""
GROWTH = 1.05
"""each so many times the one before."""
FARTHEST = 64
"""Longest length that is tried, in lengths asked for, where the model has no limit."""
TRIES = 2
SMALLER = 0.95
"""A GPU is smaller with at most so much of the memory: cards of one size differ by a little."""
SHORTER = (0.8, 0.6, 0.4, 0.2)
"""Shares of the asked length at which full fine-tuning is tried."""


def changes(question: Question, choice: Choice, *, first: bool) -> tuple[str, ...]:
    """Sentences, each of which the replay has confirmed; of the ``first`` answer, one more."""
    estimate, run = choice.estimate, choice.estimate.run
    alone = dataclasses.replace(question, budget=_of_memory(question.budget), needs=Needs())
    found = (
        _longer(alone, estimate),
        _smaller_gpu(alone, find_method(run.method.name), run),
        _full(alone, run) if first else "",
    )
    return tuple(sentence for sentence in found if sentence)


def _of_memory(budget: Budget) -> Budget:
    return Budget(max_memory_bytes=budget.max_memory_bytes, max_oom_risk=budget.max_oom_risk)


def _longer(question: Question, estimate: Estimate) -> str:
    """The longest samples that the same settings take; nothing where the model sets the length."""
    run = estimate.run
    if run.training.seq_len >= (max_positions(run.model) or run.training.seq_len + 1):
        return ""
    for length in _lengths_that_may_fit(question, estimate)[:TRIES]:
        training = dataclasses.replace(run.training, seq_len=length)
        longer = dataclasses.replace(run, training=training)
        simulated = obtain(variant_of(longer), exact=False)
        if holds(question, from_simulated(longer, simulated, question.budget)):
            micro = run.training.micro_batch_size
            return f"samples of up to {length:,} tokens fit too, at micro-batch {micro}"
    least = run.training.micro_batch_size == 1
    need = "more memory" if least else "a smaller micro-batch"
    return f"longer samples than {run.training.seq_len:,} tokens need {need}"


def _lengths_that_may_fit(question: Question, estimate: Estimate) -> list[int]:
    """Lengths beyond the asked one that likely fit, the longest first.

    What the replay finds above the quick bound is taken to grow as the bound does.
    """
    run = estimate.run
    training, config = run.training, run.model.config
    far = max_positions(run.model) or FARTHEST * training.seq_len
    count = int(np.log(max(1.0, far / training.seq_len)) / np.log(GROWTH)) + 1
    grown = training.seq_len * GROWTH ** np.arange(1, count + 1)
    lengths = np.unique(np.minimum(grown // STEP * STEP, far)).astype(int)
    points: list[Point] = [
        (training.micro_batch_size, int(s), training.target_len)
        for s in lengths
        if s > training.seq_len
    ]
    here = regime_of((training.micro_batch_size, training.seq_len, training.target_len), config)
    points = [p for p in points if regime_of(p, config).beyond_window == here.beyond_window]
    if not points:
        return []
    there = shard(obtain(variant_of(run), exact=False), run)
    now = (training.micro_batch_size, training.seq_len, training.target_len)
    peaks = there.recording.allocated_peaks(
        [now, *points], there.units, accumulate=there.accumulate
    )
    held = least_device_bytes(peaks, 0, run.gpu, run.gpus)
    limit = most_bytes_on(question.budget, run.gpu, training.loss, run.gpus)
    allowed = limit * int(held[0]) / estimate.memory.device_peak_bytes
    return [s for (_, s, _), n in zip(points, held[1:], strict=True) if n <= allowed][::-1]


def _smaller_gpu(question: Question, method: Method, run: RunSpec) -> str:
    """The smallest GPU with a price on which the method still runs, and how."""
    most = SMALLER * run.gpu.usable_bytes
    smaller = [place for place in _singles() if place.gpu.usable_bytes <= most]
    if not smaller:
        return ""
    found = _on_the_smallest(question, method, smaller)
    if found is None:
        return "no smaller GPU with a price runs it"
    return f"the smallest GPU that runs it is {_described(found)}"


def _full(question: Question, run: RunSpec) -> str:
    """Where full fine-tuning is out of reach: shorter samples, or the GPU, that it would take."""
    full = find_method("full")
    if run.method.name == "full" or _first(question, full) is not None:
        return ""
    asked = question.training
    for share in SHORTER:
        length = max(STEP, int(share * asked.seq_len) // STEP * STEP)
        training = dataclasses.replace(asked, seq_len=length)
        if length < asked.seq_len and _first(
            dataclasses.replace(question, training=training), full
        ):
            return f"with samples of {length:,} tokens full fine-tuning fits"
    larger = [p for p in _singles() if p.gpu.usable_bytes > run.gpu.usable_bytes]
    found = _on_the_smallest(question, full, larger)
    if found is None:
        return "full fine-tuning fits on no single GPU with a price"
    return f"full fine-tuning would take {_described(found)}"


@cache
def _singles() -> tuple[Place, ...]:
    return tuple(place for place in for_hire() if place.count == 1)


def _on_the_smallest(
    question: Question, method: Method, places: Sequence[Place]
) -> Candidate | None:
    """The least memory on which the method runs, as the replay confirms."""
    if not places:
        return None
    by_size = dataclasses.replace(question, places=tuple(places))
    found = _candidates(by_size, method)
    return _held(by_size, sorted(found, key=lambda c: (c.place.gpu.usable_bytes, c.step_s)))


def _first(question: Question, method: Method) -> Candidate | None:
    return _held(question, sorted(_candidates(question, method), key=lambda c: c.device_bytes))


def _held(question: Question, candidates: Iterable[Candidate]) -> Candidate | None:
    answer = first_that_holds(question, candidates)
    return None if answer is None else answer[0]


def _candidates(question: Question, method: Method) -> list[Candidate]:
    """What the quick bound lets through of the preferred settings."""
    found: list[Candidate] = []
    every = settings(question, method)
    for setting in every:
        if setting.concession > every[0].concession:
            break
        try:
            found += weigh(question, setting, None)
        except UsageError:
            continue
    return [c for c in found if c.device_bytes <= most_bytes(question, c)]


def _described(candidate: Candidate) -> str:
    place, recompute = candidate.place, candidate.setting.training.gradient_checkpointing
    usd = "" if place.usd_per_hour is None else f", {place.usd_per_hour:.2f} USD/h"
    how = f"micro-batch {candidate.micro_batch_size}"
    how += "" if recompute == "none" else " with checkpointing"
    memory = format_bytes(place.gpu.usable_bytes)
    return f"{place.gpu.id} ({memory}{usd}), at {how}"
