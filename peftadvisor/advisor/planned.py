"""A run that somebody plans, as the rules see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftadvisor.advisor.learning_rates import learning_rates, rate_of
from peftadvisor.advisor.rules import Case, find_rule
from peftadvisor.data.hyperparameters import GROUPS, load_rules
from peftadvisor.methods.base import Method
from peftadvisor.specs import Job, ModelSpec, TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """A run as the rules see it: ``settings`` are all of the method's, defaults included.

    ``batch`` are sequences per optimizer step, ``case`` is what rules are looked up by; None is
    what cannot be told.
    """

    method: Method
    settings: Mapping[str, Any]
    learning_rate: float | None
    job: Job
    model: ModelSpec
    training: TrainingSpec | None
    batch: int | None
    case: Case

    @property
    def steps(self) -> float | None:
        """Optimizer steps in all."""
        return self.case.steps

    @property
    def alpha(self) -> float | None:
        """Alpha, None where the method has none."""
        return self.number("alpha") or None

    @property
    def lora_like(self) -> bool:
        """Whether it is LoRA or a variant of it."""
        return self.method.name in GROUPS["lora-like"]

    @property
    def few_data(self) -> bool:
        """Whether there are so few examples that low ranks do."""
        few = load_rules()["rank-few"].max_examples
        assert few is not None
        return self.job.examples is not None and self.job.examples <= few

    @property
    def nf4(self) -> bool:
        """Whether the base is quantized to four bits, by the user or by the method."""
        said = "none" if self.training is None else self.training.quantization
        implied = self.method.quantization or "none"
        return (implied if said == "none" else said).startswith("nf4")

    def number(self, setting: str) -> float:
        """A numeric setting, 0 where the method has none such."""
        value = self.settings.get(setting)
        return value if isinstance(value, (int, float)) else 0

    def advised_rate(self, *, alpha: float | None) -> float | None:
        """The learning rate that the rules give at this rank, for an alpha or for their own."""
        rank = int(self.number("rank")) or None
        return rate_of(learning_rates(self.method, self.model, self.case, rank=rank, alpha=alpha))

    def above(self, value: float | None, hyperparameter: str) -> bool:
        """Whether a value exceeds the range that the method's rule on it recommends."""
        rule = find_rule(self.method.name, hyperparameter, self.case)
        if value is None or rule is None or rule.high is None:
            return False
        return value > rule.high
