"""Hyperparameters by rule: those of a method, and those of the training around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peftadvisor.advisor.advised import Advised, Value
from peftadvisor.advisor.amounts import (
    epochs_for,
    learned_tokens,
    parameters_per_rank,
    rank_holding,
    run_steps,
)
from peftadvisor.advisor.learning_rates import learning_rates
from peftadvisor.advisor.rules import Case, advice, case_of, find_rule
from peftadvisor.data.hyperparameters import HyperparameterRule
from peftadvisor.methods.base import Method
from peftadvisor.methods.linears import config_linears
from peftadvisor.specs import Job, ModelSpec

_TRAINING = (
    "epochs",
    "steps",
    "warmup_ratio",
    "lr_scheduler",
    "weight_decay",
    "max_grad_norm",
    "effective_batch_size",
    "adapter_dtype",
    "optimizer",
)
_SAID_BY_THE_JOB = frozenset({"epochs", "steps"})
_LEAST_RANK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What formulas read; ``chosen`` are the values advised so far."""

    method: Method
    model: ModelSpec
    job: Job
    case: Case
    batch_size: int = 1
    chosen: dict[str, Value] = field(default_factory=dict)


def method_settings(method: Method, model: ModelSpec, job: Job) -> tuple[Advised, ...]:
    """The method's own hyperparameters for which there is a rule, in the method's order.

    Rank is what the tokens learned ask for, within the range recommended for the task; where the
    model's config does not tell its linear layers, or the job its size, it is where that begins.
    """
    work = _Work(method=method, model=model, job=job, case=case_of(model, job))
    found = []
    for name in method.defaults:
        advised = _advised(name, work)
        if advised is not None:
            work.chosen[name] = advised.value
            found.append(advised)
    return tuple(found)


def training_settings(
    method: Method,
    model: ModelSpec,
    job: Job,
    *,
    effective_batch_size: int,
    trained_rank: int | None,
    alpha: float | None,
) -> tuple[Advised, ...]:
    """Learning rate, length, schedule and the like, as far as sources tell for the method.

    The learning rate is for this alpha and rank; None stands for the alpha that ``method_settings``
    advises, and the method's default rank. A method without a sourced rate gets none:
    ``conflicts`` says so.
    """
    case = case_of(model, job)
    work = _Work(method=method, model=model, job=job, case=case, batch_size=effective_batch_size)
    known = job.epochs is not None or job.steps is not None
    found = []
    for name in _TRAINING:
        advised = None if known and name in _SAID_BY_THE_JOB else _advised(name, work)
        if advised is not None:
            work.chosen[name] = advised.value
            found.append(advised)
    steps = run_steps(job, effective_batch_size, _number(work.chosen.get("epochs")))
    rates = learning_rates(method, model, case.with_steps(steps), rank=trained_rank, alpha=alpha)
    return (*rates, *found)


def _advised(name: str, work: _Work) -> Advised | None:
    rule = find_rule(work.method.name, name, work.case)
    if rule is None or work.method.unavailable:
        return None
    if rule.formula is not None:
        return _FORMULAS[rule.formula](rule, work)
    return None if rule.value is None else advice(rule, name, rule.value)


def _number(value: Value | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _capacity(rule: HyperparameterRule, work: _Work) -> Advised:
    """The power of two that holds the data, from the rule's start on and within its range."""
    needed, note = _needed_rank(work)
    return _rank(rule, rule, needed, note)


def _capacity_or_beyond(rule: HyperparameterRule, work: _Work) -> Advised:
    """As ``_capacity``; data that is too large for the range has another."""
    needed, note = _needed_rank(work)
    beyond = find_rule(work.method.name, "rank_beyond", work.case)
    if beyond is None or rule.high is None or needed <= rule.high:
        return _rank(rule, rule, needed, note)
    return _rank(rule, beyond, needed, f"{beyond.rule} ({beyond.source}); {note}")


def _rank(rule: HyperparameterRule, span: HyperparameterRule, needed: float, note: str) -> Advised:
    assert span.low is not None
    assert span.high is not None
    start = max(_number(rule.value) or 0, 2 ** math.ceil(math.log2(max(needed, 1))))
    value = int(min(max(start, span.low), span.high))
    return replace(advice(rule, "rank", value, note), low=span.low, high=span.high)


def _needed_rank(work: _Work) -> tuple[float, str]:
    """The rank that the tokens ask for, and a sentence on it; 0 where it cannot be told."""
    tokens = learned_tokens(work.job)
    targets = find_rule(work.method.name, "target_modules", work.case)
    per_rank = parameters_per_rank(work.method, work.model, targets and targets.value)
    rule = find_rule(work.method.name, "capacity", work.case)
    if tokens is None:
        return 0, "raise it for large data (its size is not said)"
    if rule is None or per_rank is None:
        return 0, "not held against the data: the config does not tell the linear layers"
    needed = rank_holding(tokens, per_rank)
    what = f"{tokens:.3g} tokens ask for rank {math.ceil(needed)} at {per_rank:,} parameters a rank"
    return needed, f"{what} ({rule.source})"


def _half_capacity(rule: HyperparameterRule, work: _Work) -> Advised | None:
    """Half of the rank that LoRA would get, which is the upper end."""
    lora = find_rule("lora", "rank", work.case)
    if lora is None or lora.formula is None:
        return None
    full = _number(_FORMULAS[lora.formula](lora, work).value)  # type: ignore[union-attr]
    assert full is not None
    half = max(_LEAST_RANK, int(full) // 2)
    note = f"LoRA's would be {full:g}: {lora.rule} ({lora.source})"
    return replace(advice(rule, "rank", half, note), low=half, high=full)


def _times(of: str) -> Callable[[HyperparameterRule, _Work], Advised | None]:
    """A formula: so many times another hyperparameter, as advised or by default."""

    def formula(rule: HyperparameterRule, work: _Work) -> Advised | None:
        base = _number(work.chosen.get(of, work.method.defaults.get(of)))
        ratio = _number(rule.value)
        if base is None or ratio is None:
            return None
        return advice(rule, rule.hyperparameter, round(base * ratio))

    return formula


def _steps(rule: HyperparameterRule, work: _Work) -> Advised | None:
    return None if work.job.steps is None else advice(rule, rule.hyperparameter, work.job.steps)


def _epochs(rule: HyperparameterRule, work: _Work) -> Advised:
    """The fewest epochs that make as many steps as the rule's value."""
    steps = _number(rule.value)
    assert steps is not None
    low, high = int(rule.low or 1), int(rule.high or 1)
    return advice(rule, "epochs", epochs_for(work.job, work.batch_size, steps, low, high))


def _within(rule: HyperparameterRule, work: _Work) -> Advised:
    """The batch that is asked for, moved into the range."""
    assert rule.low is not None
    assert rule.high is not None
    value = int(min(max(work.batch_size, rule.low), rule.high))
    return advice(rule, rule.hyperparameter, value)


def _for_adapters(rule: HyperparameterRule, work: _Work) -> Advised | None:
    """The rule's value, for methods that train little beside the frozen model."""
    if work.method.family == "full" or rule.value is None:
        return None
    return advice(rule, rule.hyperparameter, rule.value)


def _names(*roles: str) -> Callable[[HyperparameterRule, _Work], Advised | None]:
    """A formula: the names of the layers of these roles, where every role has one."""

    def formula(rule: HyperparameterRule, work: _Work) -> Advised | None:
        linears: tuple[Any, ...] = config_linears(work.model.config) or ()
        names = {x.path.rpartition(".")[2]: x.role for x in linears if x.role in roles}
        if set(names.values()) != set(roles):
            return None
        return advice(rule, rule.hyperparameter, tuple(names))

    return formula


_FORMULAS: Mapping[str, Callable[[HyperparameterRule, _Work], Advised | None]] = {
    "capacity": _capacity,
    "capacity-or-beyond": _capacity_or_beyond,
    "half-capacity": _half_capacity,
    "times-rank": _times("rank"),
    "times-target": _times("target_rank"),
    "steps": _steps,
    "epochs": _epochs,
    "within": _within,
    "for-adapters": _for_adapters,
    "key-value-down": _names("k", "v", "down"),
    "down": _names("down"),
}
