"""What is said of a run whose settings are at odds with each other or with what is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from peftadvisor.data.hyperparameters import Confidence
from peftadvisor.data.tables import Row, catalog_path, read_table

Kind = Literal["warns", "conflict"]

_COLUMNS = ("id", "kind", "statement", "source", "confidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRule:
    """One sentence on a run; ``kind`` is conflict where sources disagree on it."""

    id: str
    kind: Kind
    statement: str
    source: str
    confidence: Confidence


def load_run_rules() -> Mapping[str, RunRule]:
    """Rules on any run by id, in the order in which they are to be said."""
    return _load("run_rules.csv")


def load_config_rules() -> Mapping[str, RunRule]:
    """Rules on a run as a tool's config describes it, likewise."""
    return _load("config_rules.csv")


@cache
def _load(name: str) -> Mapping[str, RunRule]:
    return {row.text("id"): _rule(row) for row in read_table(catalog_path(name), _COLUMNS)}


def _rule(row: Row) -> RunRule:
    if row.text("kind") not in ("warns", "conflict"):
        raise row.error("column 'kind' must be warns or conflict")
    if row.text("confidence") not in ("high", "medium", "low"):
        raise row.error("column 'confidence' must be high, medium or low")
    return RunRule(
        id=row.text("id"),
        kind=cast(Kind, row.text("kind")),
        statement=row.text("statement"),
        source=row.text("source"),
        confidence=cast(Confidence, row.text("confidence")),
    )
