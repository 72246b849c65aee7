"""Practical findings of the PEFT survey (arXiv 2303.15647), restated, with how sure each is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from peftadvisor.data.tables import catalog_path, read_table

_COLUMNS = ("id", "statement", "source", "confidence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One finding; ``confidence`` is high (read in the source), medium (second hand) or low."""

    id: str
    statement: str
    source: str
    confidence: str


def load_recommendations() -> dict[str, Recommendation]:
    """All recommendations by id (``'R1'``)."""
    return dict(_bundled())


@cache
def _bundled() -> dict[str, Recommendation]:
    rows = read_table(catalog_path("recommendations.csv"), _COLUMNS)
    return {
        row.text("id"): Recommendation(**{column: row.text(column) for column in _COLUMNS})
        for row in rows
    }
