"""What is asked for when advice is wanted, and what the advice is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.profiles import SCHEMA_VERSION, Estimate
from peftadvisor.specs import Budget, GpuSpec, ModelSpec, Sharding, TrainingSpec

ALL = ("all",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of ``methods`` suits this model on these GPUs within this budget.

    ``training`` holds what the user fixed (lengths, dtype, attention, padding); the advisor
    chooses micro-batch, accumulation, checkpointing and optimizer so that one optimizer step
    sees ``effective_batch_size`` samples. The best ``top`` methods that fit are worked out in
    full, or every one of ``methods`` where they are named. None stands for those in common use,
    ``ALL`` for all there are.
    """

    model: ModelSpec
    gpu: GpuSpec
    gpus: int
    training: TrainingSpec
    budget: Budget
    effective_batch_size: int
    methods: tuple[str, ...] | None
    top: int = 6
    sharding: Sharding = "ddp"
    expandable_segments: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError on a number out of range or an empty choice of methods."""
        if self.gpus < 1:
            raise UsageError(f"gpus is {self.gpus}; it must be 1 or more")
        if self.top < 1:
            raise UsageError(f"top is {self.top}; it must be 1 or more")
        if self.effective_batch_size < 1:
            raise UsageError(
                f"effective_batch_size is {self.effective_batch_size}; it must be 1 or more"
            )
        if self.methods is not None and not self.methods:
            raise UsageError("methods is empty; name at least one, or leave it out")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the specs by their ids."""
        return {
            "model": self.model.id,
            "gpu": self.gpu.id,
            "gpus": self.gpus,
            "sharding": self.sharding,
            "expandable_segments": self.expandable_segments,
            "training": asdict(self.training),
            "budget": asdict(self.budget),
            "effective_batch_size": self.effective_batch_size,
            "methods": None if self.methods is None else list(self.methods),
            "top": self.top,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A run that fits, why it ranks where it does, and the findings it rests on.

    ``citations`` are ids of recommendations with their confidence: ``'R1 (seen)'``.
    """

    estimate: Estimate
    score_reasons: tuple[str, ...]
    citations: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The estimate's plain data with the reasons beside it."""
        return {
            **self.estimate.to_dict(),
            "why": list(self.score_reasons),
            "citations": list(self.citations),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A method that was ruled out, and how many bytes too much it needs where that is why."""

    estimate: Estimate | None
    method: str
    reason: str
    over_by_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the estimate is null where none could be made."""
        return {
            "method": self.method,
            "reason": self.reason,
            "over_by_bytes": self.over_by_bytes,
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The answer: what fits, best first; what does not; what else the user should know.

    ``further`` names methods that rank lower and fit by a quick lower bound of memory.
    """

    question: Question
    choices: tuple[Choice, ...]
    rejected: tuple[Rejection, ...]
    further: tuple[str, ...] = ()
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the shape of the JSON contract."""
        return {
            "schema_version": SCHEMA_VERSION,
            "question": self.question.to_dict(),
            "recommendations": [choice.to_dict() for choice in self.choices],
            "rejected": [rejection.to_dict() for rejection in self.rejected],
            "further": list(self.further),
            "notes": list(self.notes),
        }
