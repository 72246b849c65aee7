"""How far predicted device memory was from what published runs took: the bundled table of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from peftadvisor.data.tables import catalog_path, read_table

TABLE = "memory_errors.csv"
COLUMNS = ("row_id", "source", "loss", "measured_bytes", "predicted_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMiss:
    """One published run: device memory that it took, and that the physics alone predicted.

    ``loss`` is its setting of that name: runs with fused kernels form a group of their own.
    """

    row_id: str
    source: str
    loss: str
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
            loss=row.text("loss"),
            measured_bytes=row.integer("measured_bytes"),
            predicted_bytes=row.integer("predicted_bytes"),
        )
        for row in read_table(catalog_path(TABLE), COLUMNS)
    )
