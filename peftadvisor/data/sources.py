"""What the keys in the ``source`` columns of the catalogs stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from peftadvisor.data.tables import catalog_path, read_table
from peftadvisor.errors import UsageError

_COLUMNS = ("key", "what", "location", "license")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a fact comes from; ``location`` and ``license`` are empty where there is none."""

    key: str
    what: str
    location: str
    license: str


def load_sources() -> dict[str, Source]:
    """All sources by key."""
    return dict(_bundled())


def describe_sources(keys: str) -> str:
    """A ``source`` cell (keys joined by ``;``) in words.

    Raises:
        UsageError: a key is in no row of ``sources.csv``.
    """
    known = _bundled()
    described = []
    for key in keys.split(";"):
        if key not in known:
            raise UsageError(f"unknown source '{key}'; add it to sources.csv")
        source = known[key]
        described.append(f"{source.what} ({source.location})" if source.location else source.what)
    return "; ".join(described)


@cache
def _bundled() -> dict[str, Source]:
    rows = read_table(catalog_path("sources.csv"), _COLUMNS)
    return {
        row.text("key"): Source(
            key=row.text("key"),
            what=row.text("what"),
            location=row.optional("location") or "",
            license=row.optional("license") or "",
        )
        for row in rows
    }
