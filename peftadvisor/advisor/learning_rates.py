"""Learning rates: by formula for the families that one is fitted on, else by method, else none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peftadvisor.advisor.advised import Advised
from peftadvisor.advisor.rules import Case, advice, find_rule
from peftadvisor.data.hyperparameters import HyperparameterRule, rules_for
from peftadvisor.methods.base import Method
from peftadvisor.methods.linears import hidden_width
from peftadvisor.specs import ModelSpec

NAME = "learning_rate"
WIDTH = 2000
"""The hidden size at which the formula's value is its base."""

NEAR = 3.0
"""How far around a single tested value a rate still counts as tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A learning rate as a rule gives it, and the alpha that it is meant for."""

    advised: Advised
    at_alpha: float | None
    sweep: float | None

    def times(self, factor: float, note: str) -> Rate:
        """Scaled as a whole: value and range."""
        was = self.advised
        assert isinstance(was.value, (int, float))
        scaled = replace(
            was,
            value=was.value * factor,
            low=None if was.low is None else was.low * factor,
            high=None if was.high is None else was.high * factor,
            rule=f"{was.rule}; {note}",
        )
        return replace(self, advised=scaled)


def learning_rates(
    method: Method, model: ModelSpec, case: Case, *, rank: int | None, alpha: float | None
) -> tuple[Advised, ...]:
    """The rate, and where one value is not enough a sweep of three; nothing without a source.

    ``alpha`` None stands for the alpha that the rule is meant for.
    """
    rate = _rate(method, model, case, rank)
    if rate is None:
        return ()
    if alpha is not None and rate.at_alpha is not None and alpha != rate.at_alpha:
        factor = rate.at_alpha / alpha
        rate = rate.times(factor, f"× {factor:g}, as alpha is {alpha:g}: the step goes with both")
    short = find_rule(method.name, "learning_rate_factor", case)
    if short is not None:
        assert isinstance(short.value, float)
        rate = rate.times(short.value, f"{short.rule} ({short.source})")
    if rate.sweep is None:
        return (rate.advised,)
    return rate.advised, _sweep(rate.advised, rate.sweep)


def rate_of(advised: tuple[Advised, ...]) -> float | None:
    """The learning rate among pieces of advice, None where there is none."""
    values = (a.value for a in advised if a.name == NAME)
    return next((float(value) for value in values if isinstance(value, (int, float))), None)


def failed_rate(method: str, case: Case) -> float | None:
    """The highest rate at which the method is known to have failed, None if none is."""
    rule = find_rule(method, "failed_learning_rate", case)
    return None if rule is None else rule.high


def rates_tested(method: str, case: Case) -> tuple[float, float] | None:
    """Lowest and highest rate that sources recommend or tested for such a task, on any model."""
    spans = [
        span
        for hyperparameter in (NAME, "tested_learning_rate")
        for rule in rules_for(method, hyperparameter)
        if not rule.tasks or (rule.unnamed if case.task is None else case.task in rule.tasks)
        if (span := _span(rule, case)) is not None
    ]
    return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else None


def _span(rule: HyperparameterRule, case: Case) -> tuple[float, float] | None:
    if rule.formula in _OF_LORA:
        lora = rates_tested("lora", case)
        ratio = float(rule.value or 1)
        return lora and (lora[0] * (rule.low or ratio), lora[1] * (rule.high or ratio))
    bare = rule.value if isinstance(rule.value, float) and rule.formula is None else None
    bounds = [bound for bound in (rule.low, rule.high) if bound is not None]
    if rule.low is None or rule.high is None:
        bounds += [] if bare is None else [bare / NEAR, bare * NEAR]
    return (min(bounds), max(bounds)) if bounds else None


def _sweep(rate: Advised, factor: float) -> Advised:
    assert isinstance(rate.value, (int, float))
    values = (rate.value / factor, float(rate.value), rate.value * factor)
    return replace(
        rate,
        name=f"{NAME}_sweep",
        value=values,
        low=values[0],
        high=values[-1],
        rule=f"try all three on a part of the data and keep the best: {rate.rule}",
    )


def _rate(method: Method, model: ModelSpec, case: Case, rank: int | None) -> Rate | None:
    rule = find_rule(method.name, NAME, case)
    if rule is None:
        return None
    if rule.formula in _OF_LORA:
        lora = _plain("lora", model, case)
        return lora and _OF_LORA[rule.formula](rule, lora, rank or method.defaults["rank"])
    return _by_rule(rule, model)


def _plain(method: str, model: ModelSpec, case: Case) -> Rate | None:
    rule = find_rule(method, NAME, case)
    return None if rule is None else _by_rule(rule, model)


def _by_rule(rule: HyperparameterRule, model: ModelSpec) -> Rate | None:
    """A rule's own value, or the formula's at the width of the model."""
    assert isinstance(rule.value, (int, float))
    value = float(rule.value)
    if rule.exponent is not None:
        width = hidden_width(model.config)
        if width is None:
            return None
        value *= (WIDTH / width) ** rule.exponent
    found = advice(rule, NAME, value)
    if found.low is not None and value < found.low:
        found = replace(found, low=value)
    if found.high is not None and value > found.high:
        found = replace(found, high=value)
    return Rate(advised=found, at_alpha=rule.at_alpha, sweep=rule.sweep)


def _share(rule: HyperparameterRule, lora: Rate, rank: Any) -> Rate:
    """A share of LoRA's rate, at LoRA's alpha; the range of shares is the range."""
    assert isinstance(lora.advised.value, float)
    base, ratio = lora.advised.value, float(rule.value or 1)
    found = replace(
        advice(rule, NAME, base * ratio, f"LoRA's: {lora.advised.rule}"),
        source=f"{rule.source}; {lora.advised.source}",
        low=None if rule.low is None else base * rule.low,
        high=None if rule.high is None else base * rule.high,
    )
    return Rate(advised=found, at_alpha=lora.at_alpha, sweep=rule.sweep or lora.sweep)


def _per_root_rank(rule: HyperparameterRule, lora: Rate, rank: Any) -> Rate:
    return _share(rule, lora, rank).times(1 / math.sqrt(rank), f"at rank {rank}")


def _as_it_is(rule: HyperparameterRule, lora: Rate, rank: Any) -> Rate:
    """LoRA's rate whatever the alpha: these do not begin at no change."""
    return replace(_share(rule, lora, rank), at_alpha=None)


_OF_LORA: Mapping[str | None, Callable[[HyperparameterRule, Rate, Any], Rate]] = {
    "of-lora": _share,
    "of-lora-per-root-rank": _per_root_rank,
    "of-lora-as-it-is": _as_it_is,
}
