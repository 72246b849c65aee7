"""Candidates put to the replay of their allocations, in order, until one holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from peftadvisor.advisor.estimating import from_simulated, variant_of
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.weighing import Candidate, typical_length
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import obtain
from peftadvisor.specs import RunSpec
from peftadvisor.units import format_bytes


def first_that_holds(
    question: Question, candidates: Iterable[Candidate]
) -> tuple[Candidate, Estimate] | None:
    """The first whose estimate stays within every limit, and that estimate.

    What takes as much as one that failed, with the same setting and place, is passed over.
    """
    failed: dict[tuple[int, int], int] = {}
    for candidate in candidates:
        where = id(candidate.setting), id(candidate.place)
        if candidate.device_bytes >= failed.get(where, candidate.device_bytes + 1):
            continue
        estimate = estimate_of(question, candidate)
        if holds(question, estimate):
            return candidate, estimate
        failed[where] = candidate.device_bytes
    return None


def estimate_of(question: Question, candidate: Candidate) -> Estimate:
    """Of the run that a candidate stands for."""
    run = candidate.run(question)
    longest = _simulated(question, run)
    t = run.training
    length = typical_length(question, t.micro_batch_size, t.seq_len)
    if length == t.seq_len:
        return longest
    training = dataclasses.replace(t, seq_len=length)
    mean = _simulated(question, dataclasses.replace(run, training=training))
    held = format_bytes(mean.memory.device_peak_bytes)
    peak, _, *others = longest.reasons
    _, bound, *_ = mean.reasons
    said = f"memory is for the longest batch ({t.seq_len:,} tokens); a mean one ({length:,}) takes"
    return dataclasses.replace(
        longest,
        time=mean.time,
        cost=mean.cost,
        flops=mean.flops,
        reasons=(peak, bound, *others, f"{said} {held}, and time and cost are its"),
    )


def _simulated(question: Question, run: RunSpec) -> Estimate:
    simulated = obtain(variant_of(run), exact=False)
    return from_simulated(run, simulated, question.budget, job=question.job)


def holds(question: Question, estimate: Estimate) -> bool:
    """Whether an estimate stays within every limit of memory, risk, time, money and storage."""
    budget, cost = question.budget, estimate.cost
    limits = (
        (estimate.memory.device_peak_bytes, budget.max_memory_bytes),
        (estimate.memory.device_peak_bytes, estimate.run.gpu.usable_bytes),
        (cost.hours_total, budget.max_hours),
        (cost.usd_total, budget.max_usd),
        (estimate.parameters.stored_bytes, question.needs.max_stored_bytes),
    )
    within = all(most is None or (took is not None and took <= most) for took, most in limits)
    return within and estimate.verdict == "fits"
