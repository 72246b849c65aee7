"""Rules for hyperparameters, restated from recipes, comparisons and papers, with their sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast

from peftadvisor.data.tables import Row, catalog_path, read_table

Confidence = Literal["high", "medium", "low"]

_COLUMNS = (
    "id",
    "methods",
    "hyperparameter",
    "tasks",
    "family",
    "min_parameters",
    "max_examples",
    "max_steps",
    "value",
    "low",
    "high",
    "formula",
    "exponent",
    "at_alpha",
    "sweep",
    "rule",
    "source",
    "confidence",
)
_LORA = (
    "lora",
    "lora-all",
    "qlora",
    "dora",
    "rslora",
    "lora-plus",
    "lora-fa",
    "pissa",
    "olora",
    "loftq",
    "dylora",
    "sparse-lora",
    "adalora",
)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "any": (),
    "lora-like": (*_LORA, "lora-mlp"),
    "lora-anywhere": _LORA,
    "lora-scaled": ("lora", "lora-all", "lora-mlp", "dora", "rslora", "lora-plus"),
    "lora-started": ("pissa", "olora", "loftq"),
    "bottleneck": ("houlsby", "pfeiffer"),
    "parallel": ("parallel-adapter", "scaled-parallel"),
    "compacter-like": ("compacter", "compacter-plus-plus"),
    "prefix": ("prefix-tuning", "prefix-flat", "prefix-mlp"),
}
"""Names of several methods at once: ``lora-scaled`` are those whose step goes with alpha, from a
start at no change; ``lora-started`` those that begin elsewhere; ``any`` every method."""

SUPERVISED = (
    "classification",
    "summarization",
    "instruction",
    "reasoning",
    "code",
    "pretraining",
    "few-shot",
)
"""What ``supervised`` in the column of tasks stands for; it also holds where no task is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperparameterRule:
    """One rule: for which methods and when, and the value or the name of its formula.

    ``tasks`` empty means all, with ``unnamed`` it also holds where the user names none.
    ``at_alpha`` is the alpha that a learning rate is meant for, ``sweep`` the factor below and
    above that is worth a try. ``low`` and ``high`` are what the source recommends or tested.
    """

    id: str
    methods: tuple[str, ...]
    hyperparameter: str
    tasks: tuple[str, ...]
    unnamed: bool
    family: str | None
    min_parameters: int | None
    max_examples: int | None
    max_steps: int | None
    value: float | int | str | None
    low: float | None
    high: float | None
    formula: str | None
    exponent: float | None
    at_alpha: float | None
    sweep: float | None
    rule: str
    source: str
    confidence: Confidence

    def names(self, method: str) -> bool:
        """Whether it names the method itself, and not only a group."""
        return method in self.methods

    def covers(self, method: str) -> bool:
        """Whether it is for this method, by its name or as one of a group."""
        groups = (group for group in self.methods if group in GROUPS)
        return self.names(method) or any(g == "any" or method in GROUPS[g] for g in groups)


@cache
def load_rules() -> Mapping[str, HyperparameterRule]:
    """All rules by id, in the order of the file: of two that fit as closely the first counts."""
    return read_rules(catalog_path("hyperparameters.csv"))


@cache
def rules_for(method: str, hyperparameter: str) -> tuple[HyperparameterRule, ...]:
    """The rules on one hyperparameter of one method, whatever their conditions."""
    return tuple(
        rule
        for rule in load_rules().values()
        if rule.hyperparameter == hyperparameter and rule.covers(method)
    )


def read_rules(path: Path) -> dict[str, HyperparameterRule]:
    """Read a table of rules.

    Raises:
        UsageError: the file is missing, empty or holds a bad row; the message says where.
    """
    found: dict[str, HyperparameterRule] = {}
    for row in read_table(path, _COLUMNS):
        rule = _rule(row)
        if rule.id in found:
            raise row.error(f"a second rule '{rule.id}'")
        found[rule.id] = rule
    return found


def _rule(row: Row) -> HyperparameterRule:
    value, low, high = _value(row), _number(row, "low"), _number(row, "high")
    formula = row.optional("formula")
    if value is None and formula is None and low is None and high is None:
        raise row.error("no value, no formula and no bound; give one of them")
    if formula is None and not _ordered(low, value, high):
        raise row.error("low, value and high are out of order")
    if row.text("confidence") not in ("high", "medium", "low"):
        raise row.error("column 'confidence' must be high, medium or low")
    tasks = row.optional("tasks") or ""
    return HyperparameterRule(
        id=row.text("id"),
        methods=tuple(row.text("methods").split("|")),
        hyperparameter=row.text("hyperparameter"),
        tasks=SUPERVISED if tasks == "supervised" else tuple(filter(None, tasks.split("|"))),
        unnamed=tasks in ("", "supervised"),
        family=row.optional("family"),
        min_parameters=row.optional_integer("min_parameters"),
        max_examples=row.optional_integer("max_examples"),
        max_steps=row.optional_integer("max_steps"),
        value=value,
        low=low,
        high=high,
        formula=formula,
        exponent=row.optional_number("exponent"),
        at_alpha=row.optional_number("at_alpha"),
        sweep=row.optional_number("sweep"),
        rule=row.text("rule"),
        source=row.text("source"),
        confidence=cast(Confidence, row.text("confidence")),
    )


def _value(row: Row) -> float | int | str | None:
    text = row.optional("value")
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        float(text)
    except ValueError:
        return text
    return _number(row, "value")


def _number(row: Row, column: str) -> float | None:
    """A number that may be 0 (a dropout), None where the cell is blank."""
    text = row.optional(column)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise row.error(f"column '{column}' is '{text}'; it must be a number of 0 or more")
    return number


def _ordered(*numbers: float | str | None) -> bool:
    known = [number for number in numbers if isinstance(number, (int, float))]
    return known == sorted(known)
