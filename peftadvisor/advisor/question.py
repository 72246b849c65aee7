"""What is asked for when advice is wanted, and what the advice is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from peftadvisor.advisor.advised import Advised, Finding
from peftadvisor.advisor.pilot import PilotPlan
from peftadvisor.advisor.places import Place
from peftadvisor.cost_model.batching import Batching
from peftadvisor.errors import UsageError
from peftadvisor.methods.base import Method
from peftadvisor.profiles import SCHEMA_VERSION, Estimate
from peftadvisor.specs import Budget, Checkpointing, Job, ModelSpec, Optimizer, TrainingSpec

ALL = ("all",)
Role = Literal["safest", "cheapest", "smallest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the trained method must be able to do, whatever it costs."""

    mergeable: bool = False
    quantized_base: bool = False
    no_inference_overhead: bool = False
    max_stored_bytes: int | None = None

    def missing(self, method: Method) -> str:
        """What a method lacks; empty if nothing."""
        free = method.axes.inference == "none" or method.mergeable
        lacks = (
            (self.mergeable and not method.mergeable, "it cannot be merged into the weights"),
            (
                self.quantized_base and not method.quantized_base,
                "it does not train on a quantized base",
            ),
            (
                self.no_inference_overhead and not free,
                f"it costs at inference: {method.axes.inference}",
            ),
        )
        return "; ".join(words for lack, words in lacks if lack)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of ``methods`` suits this model and job, at one of ``places``, within this budget.

    ``training`` holds what the user fixed (lengths, dtype, attention, padding); the advisor
    chooses micro-batch and accumulation so that one optimizer step sees ``effective_batch_size``
    samples, and among ``checkpointing`` and ``optimizers``. ``settings`` are hyperparameters that
    the user fixed; those that a method does not have are passed over. The best ``top`` methods
    that fit are worked out in full, or every one of ``methods`` where they are named. None stands
    for those in common use, ``ALL`` for all there are. ``batching`` holds the lengths of the
    user's data: memory is for the longest batch, as ``training`` has it, time for a mean one.
    ``test_examples`` is the size of the user's test set.
    """

    model: ModelSpec
    places: tuple[Place, ...]
    training: TrainingSpec
    budget: Budget
    effective_batch_size: int
    methods: tuple[str, ...] | None
    job: Job = Job()
    needs: Needs = Needs()
    checkpointing: tuple[Checkpointing, ...] = ("none", "non-reentrant")
    optimizers: tuple[Optimizer, ...] = ("adamw", "adamw-8bit", "paged-adamw-8bit")
    settings: tuple[tuple[str, Any], ...] = ()
    top: int = 6
    expandable_segments: bool = False
    batching: Batching | None = None
    test_examples: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError on a number out of range or an empty choice of methods or places."""
        if not self.places:
            raise UsageError("no GPU costs so little; raise the price limit or name a GPU")
        for name in ("top", "effective_batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.methods is not None and not self.methods:
            raise UsageError("methods is empty; name at least one, or leave it out")

    @property
    def by_cost(self) -> bool:
        """Whether dollars decide between what is otherwise alike, since places differ in them."""
        return len(self.places) > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the specs by their ids."""
        return {
            "model": self.model.id,
            "places": [place.to_dict() for place in self.places],
            "expandable_segments": self.expandable_segments,
            "training": asdict(self.training),
            "budget": asdict(self.budget),
            "job": asdict(self.job),
            "needs": asdict(self.needs),
            "settings": dict(self.settings),
            "checkpointing": list(self.checkpointing),
            "optimizers": list(self.optimizers),
            "effective_batch_size": self.effective_batch_size,
            "methods": None if self.methods is None else list(self.methods),
            "top": self.top,
            "data": None if self.batching is None else self.batching.to_dict(),
            "test_examples": self.test_examples,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A run that fits, why it ranks where it does, and the findings it rests on.

    ``citations`` are ids of recommendations with their confidence: ``'R1 (high)'``. ``advised``
    are its hyperparameters, each with its rule. ``pareto`` says that no other choice is better in
    one of memory, time, money and evidence, and worse in none.
    """

    estimate: Estimate
    score_reasons: tuple[str, ...]
    citations: tuple[str, ...]
    advised: tuple[Advised, ...] = ()
    findings: tuple[Finding, ...] = ()
    pareto: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The estimate's plain data with the reasons beside it."""
        return {
            **self.estimate.to_dict(),
            "why": list(self.score_reasons),
            "citations": list(self.citations),
            "hyperparameters": [advised.to_dict() for advised in self.advised],
            "findings": [finding.to_dict() for finding in self.findings],
            "pareto": self.pareto,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One of the named answers: its choice, why it and not the next one, and what would change it.

    ``limited_by`` is what keeps it from being faster or larger.
    """

    role: Role
    choice: Choice
    why: str
    not_next: str
    limited_by: str
    changes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the run by its method, the rest stands among the recommendations."""
        return {
            "role": self.role,
            "method": self.choice.estimate.run.method.name,
            "why": self.why,
            "not_next": self.not_next,
            "limited_by": self.limited_by,
            "changes": list(self.changes),
            "estimate": self.choice.to_dict(),
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
    ``ways_out`` says what would have to change where nothing fits, the cheapest first.
    ``weighed`` counts the settings that were compared.
    """

    question: Question
    choices: tuple[Choice, ...]
    rejected: tuple[Rejection, ...]
    picks: tuple[Pick, ...] = ()
    further: tuple[str, ...] = ()
    ways_out: tuple[str, ...] = ()
    pilot: PilotPlan | None = None
    notes: tuple[str, ...]
    weighed: int = field(default=0, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in the shape of the JSON contract."""
        return {
            "schema_version": SCHEMA_VERSION,
            "question": self.question.to_dict(),
            "picks": [pick.to_dict() for pick in self.picks],
            "recommendations": [choice.to_dict() for choice in self.choices],
            "rejected": [rejection.to_dict() for rejection in self.rejected],
            "further": list(self.further),
            "ways_out": list(self.ways_out),
            "pilot": None if self.pilot is None else self.pilot.to_dict(),
            "notes": list(self.notes),
            "weighed": self.weighed,
        }
