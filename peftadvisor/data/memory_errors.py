"""How far predicted device memory was from what published runs took: the bundled table of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast, get_args

from peftadvisor.data.tables import Row, catalog_path, read_table

TABLE = "memory_errors.csv"
COLUMNS = ("row_id", "source", "kind", "measured_bytes", "predicted_bytes")


Kind = Literal["plain", "fused", "several"]
"""Runs on one GPU with torch's loss, with a fused one, and runs on several GPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMiss:
    """One published run: device memory that it took, and that the physics alone predicted.

    ``kind`` is the group whose runs are alike in what is not explained yet.
    """

    row_id: str
    source: str
    kind: Kind
    measured_bytes: int
    predicted_bytes: int


@cache
def memory_misses() -> tuple[MemoryMiss, ...]:
    """All of them.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return tuple(
        MemoryMiss(
            row_id=row.text("row_id"),
            source=row.text("source"),
            kind=_kind(row),
            measured_bytes=row.integer("measured_bytes"),
            predicted_bytes=row.integer("predicted_bytes"),
        )
        for row in read_table(catalog_path(TABLE), COLUMNS)
    )


def _kind(row: Row) -> Kind:
    kind = row.text("kind")
    if kind not in get_args(Kind):
        raise row.error(f"column 'kind' is '{kind}'; it must be one of {get_args(Kind)}")
    return cast(Kind, kind)
