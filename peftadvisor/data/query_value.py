"""What the query and value projections are called, per model type: LoRA's usual targets.

Names that PEFT's own table holds come first, as in PEFT; others were found by role in the modules
of a bundled model. A pattern stands where only the language part of a model is meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from peftadvisor.data.tables import catalog_path, read_table


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryValue:
    """Last names of the projections, and the pattern of their paths where names say too much."""

    names: tuple[str, ...]
    pattern: str | None


def query_value(model_type: str) -> QueryValue | None:
    """The projections of a model type, None where it is not on file."""
    return _bundled().get(model_type)


@cache
def _bundled() -> dict[str, QueryValue]:
    rows = read_table(catalog_path("query_value.csv"), ("model_type", "names", "pattern", "basis"))
    return {
        row.text("model_type"): QueryValue(
            names=tuple(row.text("names").split()), pattern=row.optional("pattern")
        )
        for row in rows
    }
