"""What commands wrote as JSON, read back. Files come from strangers: nothing in them is trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from peftadvisor.advisor.studying import Study
from peftadvisor.cost_model.accuracy import (
    QUANTITIES,
    Accuracy,
    Compared,
    Group,
    Outcome,
    Screening,
)
from peftadvisor.data.names import one_line
from peftadvisor.data.shapes import shaped
from peftadvisor.errors import UsageError
from peftadvisor.integrations.told import Told, ToldComparison, ToldProfiles, ToldRecommendation
from peftadvisor.integrations.validation import Validation
from peftadvisor.profiles import SCHEMA_VERSION
from peftadvisor.specs import Verdict

MAX_BYTES = 100 * 10**6
_REMEDY = "pass what recommend, compare, estimate, profile or validate wrote with --format json"


Answer: TypeAlias = "Told | ToldRecommendation | ToldComparison | ToldProfiles | Validation"


def read_answer(path: Path) -> Answer:
    """The answer in a file.

    Raises:
        UsageError: the file cannot be read, is no JSON, or holds no answer; the message says where.
    """
    shown = one_line(str(path))
    return answer(_parsed(path, shown), shown)


def answer(data: Any, where: str) -> Answer:
    """Plain data as an answer, by what is in it.

    Raises:
        UsageError: it holds no answer, or one that lacks something.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{where} holds no JSON object; {_REMEDY}")
    for keys, read in _KINDS.items():
        if keys <= data.keys():
            return read(data, where)
    raise UsageError(f"{where} holds no answer that a report is made of; {_REMEDY}")


def _profiles(data: Mapping[str, Any], where: str) -> ToldProfiles:
    told = shaped(ToldProfiles, data, where)
    if not told.profiles:
        raise UsageError(f"{where}.profiles is empty; {_REMEDY}")
    return told


def _kept_profile(data: Mapping[str, Any], where: str) -> ToldProfiles:
    return _profiles({"profiles": [data["profile"]]}, where)


def _comparison(data: Mapping[str, Any], where: str) -> ToldComparison:
    told = shaped(ToldComparison, data, where)
    if not told.estimates:
        raise UsageError(f"{where}.estimates is empty: no method was estimated; {_REMEDY}")
    return told


def _validation(data: Mapping[str, Any], where: str) -> Validation:
    read = shaped(_ToldValidation, data, where)
    if not read.groups or read.groups[0].by != "overall":
        raise UsageError(f"{where}.groups has no group of all rows at its head; {_REMEDY}")
    return Validation(
        file=read.file,
        groups=tuple(group.as_group() for group in read.groups),
        rows=tuple(row.as_outcome() for row in read.rows),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToldRows:
    used: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToldGroup:
    by: Literal["overall", "source", "method", "gpu"]
    name: str
    rows: _ToldRows
    oom: Screening
    allocated: Accuracy | None = None
    reserved: Accuracy | None = None
    device: Accuracy | None = None
    step: Accuracy | None = None

    def as_group(self) -> Group:
        found = {quantity: getattr(self, quantity) for quantity in QUANTITIES}
        return Group(
            by=self.by,
            name=self.name,
            used=self.rows.used,
            skipped=self.rows.reasons,
            accuracy={quantity: errors for quantity, errors in found.items() if errors},
            screening=self.oom,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToldRow:
    row_id: str
    source: str
    method: str
    gpu: str
    skipped: str | None
    ran_out: bool | None
    verdict: Verdict | None
    compared: Mapping[str, Compared]

    def as_outcome(self) -> Outcome:
        compared = {name: self.compared[name] for name in QUANTITIES if name in self.compared}
        if any(one.measured <= 0 or one.predicted <= 0 for one in compared.values()):
            raise UsageError(
                f"row {one_line(self.row_id)}: 'measured' and 'predicted' must be above 0"
            )
        return Outcome(
            row_id=self.row_id,
            source=self.source,
            method=self.method,
            gpu=self.gpu,
            reason=self.skipped or "",
            compared=compared,
            ran_out=self.ran_out,
            verdict=self.verdict,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ToldValidation:
    file: str
    groups: tuple[_ToldGroup, ...]
    rows: tuple[_ToldRow, ...] = ()


_KINDS: Mapping[frozenset[str], Callable[[Mapping[str, Any], str], Answer]] = {
    frozenset({"question", "recommendations"}): lambda data, where: shaped(
        ToldRecommendation, data, where
    ),
    frozenset({"estimates"}): _comparison,
    frozenset({"profiles"}): _profiles,
    frozenset({"groups"}): _validation,
    frozenset({"run", "memory", "verdict"}): lambda data, where: shaped(Told, data, where),
    frozenset({"profile", "run"}): _kept_profile,
}
"""The keys that tell each kind of answer, and what reads it."""


def _parsed(path: Path, shown: str) -> Any:
    try:
        if not path.is_file():
            raise UsageError(f"{shown} is no file; {_REMEDY}")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{shown} is larger than 100 MB, so no answer; {_REMEDY}")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text; {_REMEDY}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise UsageError(f"{shown} cannot be read ({reason}); {_REMEDY}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise UsageError(f"{shown} is not valid JSON ({where}); {_REMEDY}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{shown} holds numbers or nesting beyond any answer") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a report tells: an answer, where it is from, and what was worked out besides."""

    source: str
    answer: Answer
    study: Study | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        told = self.answer
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "answer": told.to_dict() if isinstance(told, Validation) else asdict(told),
            "study": self.study and self.study.to_dict(),
        }
