"""Which rule of the table holds for a method, a model and a job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from peftadvisor.advisor.advised import Advised, Value
from peftadvisor.data.hyperparameters import HyperparameterRule, rules_for
from peftadvisor.specs import Job, ModelSpec, Task

_BY_TYPE = {"qwen2": "qwen", "qwen3": "qwen", "t5": "t5", "mt5": "t5", "umt5": "t5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the conditions of rules are held against; None is what is not known."""

    task: Task | None = None
    family: str | None = None
    parameters: int | None = None
    examples: int | None = None
    steps: float | None = None

    def with_steps(self, steps: float | None) -> Case:
        """The same with the number of optimizer steps."""
        return replace(self, steps=steps)


def case_of(model: ModelSpec, job: Job) -> Case:
    """The case of a model and a job."""
    return Case(
        task=job.task, family=family_of(model), parameters=model.parameters, examples=job.examples
    )


def family_of(model: ModelSpec) -> str | None:
    """The family that rules were fitted on: llama, qwen, t5; None for all others.

    Many models have Llama's architecture and another origin: only those named so are of its
    family. Mixtures of experts are of none.
    """
    if model.model_type == "llama":
        return "llama" if "llama" in model.id.lower() else None
    return _BY_TYPE.get(model.model_type)


def find_rule(method: str, hyperparameter: str, case: Case) -> HyperparameterRule | None:
    """The rule that fits most closely: one that names the method first, then by conditions."""
    fitting = [rule for rule in rules_for(method, hyperparameter) if _holds(rule, case)]
    return max(fitting, key=lambda rule: (rule.names(method), _conditions(rule)), default=None)


def advice(rule: HyperparameterRule, name: str, value: Value, note: str = "") -> Advised:
    """A value by a rule, with the rule's range; ``note`` goes behind its sentence."""
    return Advised(
        name=name,
        value=value,
        rule=f"{rule.rule}; {note}" if note else rule.rule,
        source=rule.source,
        confidence=rule.confidence,
        low=rule.low,
        high=rule.high,
    )


def _holds(rule: HyperparameterRule, case: Case) -> bool:
    return (
        (not rule.tasks or (rule.unnamed if case.task is None else case.task in rule.tasks))
        and (rule.family is None or rule.family == case.family)
        and (rule.min_parameters is None or (case.parameters or 0) >= rule.min_parameters)
        and (rule.max_examples is None or _at_most(case.examples, rule.max_examples))
        and (rule.max_steps is None or _at_most(case.steps, rule.max_steps))
    )


def _at_most(known: float | None, limit: int) -> bool:
    return known is not None and known <= limit


def _conditions(rule: HyperparameterRule) -> int:
    numbers = (rule.min_parameters, rule.max_examples, rule.max_steps)
    return bool(rule.tasks) + (rule.family is not None) + sum(n is not None for n in numbers)
