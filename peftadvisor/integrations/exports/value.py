"""What an export is made of, what a format offers, and how a format's run differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any

from peftadvisor.advisor.advised import Advised, Value
from peftadvisor.methods import find_method
from peftadvisor.profiles import Estimate
from peftadvisor.specs import Job, RunSpec, TrainingSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An estimate, the advice that goes with it, and the job it is for; ``made`` on a day."""

    estimate: Estimate
    advised: tuple[Advised, ...]
    job: Job
    made: date

    @property
    def run(self) -> RunSpec:
        """The run that was estimated."""
        return self.estimate.run

    @property
    def training(self) -> TrainingSpec:
        """How it trains."""
        return self.run.training

    @property
    def settings(self) -> dict[str, Any]:
        """The method's hyperparameters, defaults included."""
        return find_method(self.run.method.name).settings(self.run.method)

    @property
    def completions(self) -> bool:
        """Whether examples are prompts and completions of which the completions are learned."""
        return self.job.learned_per_example is not None

    def advice(self, name: str) -> Value | None:
        """The advised value of one hyperparameter, None where there is no advice."""
        return next((advice.value for advice in self.advised if advice.name == name), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """How the run of a format differs from the one that was estimated.

    ``changes`` are the training settings that describe what is run; empty where none can.
    """

    text: str
    changes: tuple[tuple[str, Any], ...] = ()


def changed(text: str, **changes: Any) -> Difference:
    """A difference that training settings describe."""
    return Difference(text, tuple(changes.items()))


def as_run(run: RunSpec, differences: Sequence[Difference]) -> RunSpec:
    """The run with the settings that the differences name."""
    changes = {name: value for found in differences for name, value in found.changes}
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **changes))


def loop_difference(training: TrainingSpec, trainer: str) -> list[Difference]:
    """What every trainer built on transformers' does otherwise than a plain loop."""
    if training.loop == "trainer":
        return []
    text = f"the estimate holds the logits during backward; {trainer} lets go of them before"
    return [changed(text, loop="trainer")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format: who writes it, for which methods, and which values of a lever it has.

    A lever that ``offers`` does not name is offered with all its values; ``text_only`` says that
    the format trains causal language models and no others, ``liger`` that its losses other than
    torch's are Liger's.
    """

    name: str
    write: Callable[[Export], str]
    methods: frozenset[str]
    offers: Mapping[str, Collection[str]]
    text_only: bool = True
    liger: bool = True
