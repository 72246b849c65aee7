"""Answers as their JSON has them: what a report is made of, whoever wrote the file.

A run's model and GPU are known by name alone, so these are not the values that were written; what
they show is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftadvisor.advisor.advised import Advised, Finding
from peftadvisor.advisor.pilot import PilotPlan
from peftadvisor.advisor.question import Role
from peftadvisor.profiles import (
    Cost,
    Evidence,
    Flops,
    Memory,
    Parameters,
    Profile,
    Provenance,
    StepTime,
)
from peftadvisor.specs import Sharding, TrainingSpec, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRun:
    """What was run, by names."""

    model: str
    method: str
    method_config: Mapping[str, Any] = field(hash=False)
    training: TrainingSpec
    gpu: str
    gpus: int = 1
    sharding: Sharding = "ddp"
    expandable_segments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCard:
    """The GPU by name, and its memory."""

    id: str
    memory_bytes: int
    usable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An estimate as its JSON has it; what is said of a choice stands beside it."""

    run: ToldRun
    parameters: Parameters
    memory: Memory
    flops: Flops
    time: StepTime
    cost: Cost
    gpu: ToldCard
    verdict: Verdict
    oom_probability: float
    evidence: Evidence
    reasons: tuple[str, ...]
    provenance: Provenance
    why: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    hyperparameters: tuple[Advised, ...] = ()
    findings: tuple[Finding, ...] = ()
    pareto: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPick:
    """One of a recommendation's named answers."""

    role: Role
    why: str
    not_next: str
    limited_by: str
    changes: tuple[str, ...]
    estimate: Told


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRejection:
    """A method that was ruled out."""

    method: str
    reason: str
    over_by_bytes: int | None
    estimate: Told | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldQuestion:
    """What was asked."""

    model: str
    training: TrainingSpec
    effective_batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRecommendation:
    """A recommendation as its JSON has it."""

    question: ToldQuestion
    picks: tuple[ToldPick, ...]
    recommendations: tuple[Told, ...]
    rejected: tuple[ToldRejection, ...]
    further: tuple[str, ...]
    ways_out: tuple[str, ...]
    pilot: PilotPlan | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRefusal:
    """A method that no estimate could be made of."""

    method: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldComparison:
    """A comparison as its JSON has it."""

    estimates: tuple[Told, ...]
    refused: tuple[ToldRefusal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldProfiles:
    """One run's profiles: simulated, measured, or one beside the other."""

    profiles: tuple[Profile, ...]
