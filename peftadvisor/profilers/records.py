"""Records of runs, and what every store of them does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from peftadvisor.errors import UsageError

Status = Literal["done", "failed", "killed", "interrupted", "out of memory"]


class StoreError(UsageError):
    """The store cannot be used; another may be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run, however it ended: ``reached`` says how far it got, ``profile`` is its result.

    ``run`` and ``profile`` are plain data; ``id`` and ``created`` (UTC) are given by the store.
    """

    status: Status
    reached: str
    run: Mapping[str, Any] = field(hash=False)
    profile: Mapping[str, Any] | None = field(default=None, hash=False)
    id: int = 0
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "id": self.id,
            "created": self.created,
            "status": self.status,
            "reached": self.reached,
            "run": dict(self.run),
            "profile": None if self.profile is None else dict(self.profile),
        }


class Store(Protocol):
    """Where records go."""

    def add(self, record: Record) -> Record:
        """Append one record; it is on disk, with its id, when this returns."""

    def records(self) -> Iterator[Record]:
        """All records, oldest first."""
