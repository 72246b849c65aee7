"""What comparisons have taught beyond a pooled score: findings by method and task, and full tuning.

A row of ``evidence_findings.csv`` applies where its ``methods``, its ``tasks`` and its ``when`` all
do; a blank cell always does. ``when`` names a fact about the run (``advisor/findings.py``), and
among the methods ``lora-variants`` stands for the variants of LoRA, ``lora-like`` for LoRA too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast, get_args

from peftadvisor.data.evidence import split
from peftadvisor.data.tables import Row, catalog_path, read_table

FINDING_COLUMNS = (
    "rule",
    "kind",
    "methods",
    "tasks",
    "when",
    "statement",
    "source",
    "confidence",
)
FULL_COLUMNS = ("task", "label", "reason", "sources", "confidence")

Kind = Literal["supports", "warns", "conflict"]
Confidence = Literal["high", "medium", "low"]
Label = Literal["likely better", "on par or unresolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """One finding and where it applies; ``conflict`` is a question on which sources disagree."""

    rule: str
    kind: Kind
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    when: str
    statement: str
    source: str
    confidence: Confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class FullVerdict:
    """How full fine-tuning does against well-tuned LoRA at one task."""

    label: Label
    reason: str
    sources: tuple[str, ...]
    confidence: Confidence


@cache
def finding_rows() -> tuple[FindingRow, ...]:
    """All findings.

    Raises:
        UsageError: the bundled table is damaged.
    """
    rows = read_table(catalog_path("evidence_findings.csv"), FINDING_COLUMNS)
    return tuple(
        FindingRow(
            rule=row.text("rule"),
            kind=cast(Kind, _one_of(row, "kind", get_args(Kind))),
            methods=split(row, "methods"),
            tasks=split(row, "tasks"),
            when=row.optional("when") or "",
            statement=row.text("statement"),
            source=row.text("source"),
            confidence=cast(Confidence, _one_of(row, "confidence", get_args(Confidence))),
        )
        for row in rows
    )


@cache
def full_verdicts() -> Mapping[str, FullVerdict]:
    """What is said of full fine-tuning by task; under "" where none is known.

    Raises:
        UsageError: the bundled table is damaged.
    """
    rows = read_table(catalog_path("full_fine_tuning.csv"), FULL_COLUMNS)
    return {
        row.optional("task") or "": FullVerdict(
            label=cast(Label, _one_of(row, "label", get_args(Label))),
            reason=row.text("reason"),
            sources=split(row, "sources"),
            confidence=cast(Confidence, _one_of(row, "confidence", get_args(Confidence))),
        )
        for row in rows
    }


def _one_of(row: Row, column: str, choices: tuple[str, ...]) -> str:
    value = row.text(column)
    if value not in choices:
        listed = ", ".join(choices)
        raise row.error(f"column '{column}' is '{value}'; it must be one of {listed}")
    return value
