"""Advice on hyperparameters as values: each with the rule that gave it and the rule's source."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Scalar = float | int | str | bool
Value = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advised:
    """One hyperparameter, by the name that it has in our specs (``rank``, ``learning_rate``).

    ``low`` and ``high`` are the range that the sources recommend, None where they give none.
    """

    name: str
    value: Value
    rule: str
    source: str
    confidence: Literal["high", "medium", "low"]
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A named rule that fires on a run: what it says of it, and where it comes from.

    ``kind`` says whether it speaks for the run, against it, or whether sources disagree.
    """

    rule: str
    kind: Literal["supports", "warns", "conflict"]
    statement: str
    source: str
    confidence: Literal["high", "medium", "low"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
