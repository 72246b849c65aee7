"""Published comparisons of fine-tuning methods, and the sources that they come from.

A row of ``evidence.csv`` holds two results of one source on the same model and data: a method's,
and that of what it was compared with. Only rows whose comparator is LoRA say whether a method is
at least as good as LoRA (``against_lora``). The others are kept as facts and counted nowhere:

- LoRA against full fine-tuning, or (IA)^3 against it: full fine-tuning is judged by task
  (``data/evidence_rules.py``), since its published runs mix good and bad learning rates;
- against QLoRA, GaLore or another adapter: two differences do not add up to one with LoRA;
- against the model as it is, without tuning;
- LoRA of one rank or placement against another: that speaks of settings, not of a method.

Rows about methods that peftadvisor does not have keep their own name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from peftadvisor.data.tables import Row, catalog_path, read_table

COLUMNS = (
    "method",
    "setting",
    "comparator",
    "comparator_setting",
    "model",
    "parameters",
    "kind",
    "task",
    "quantization",
    "examples",
    "data",
    "metric",
    "higher_is_better",
    "point",
    "value",
    "comparator_value",
    "test_size",
    "source",
    "confidence",
)
SOURCE_COLUMNS = (
    "id",
    "title",
    "location",
    "kind",
    "own_methods",
    "rate_tuned",
    "seeds",
    "read",
    "weight",
    "caveat",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two published results that differ in the method.

    ``kind`` of model and ``task`` are those of ``advisor/asked.py``, or words of their own for
    what nobody can ask for (``diffusion``, ``image``, ``rl``). ``quantization`` is that of the base
    under ``method``. ``examples`` is the size of the training data, ``test_size`` that of the test
    set, both where the source is known to state them. ``point`` is what counts as one point on
    the metric: 1 of a percentage, 0.01 of a share, 0.1 of a mark from 1 to 10, 0.02 of a loss.
    """

    method: str
    comparator: str
    model: str
    parameters: int
    kind: str
    task: str
    quantized: bool
    examples: int | None
    higher_is_better: bool
    point: float
    value: float
    comparator_value: float
    test_size: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceSource:
    """Where comparisons come from, and how far its protocol is to be trusted.

    ``weight`` from 0 to 1 is a judgement: learning rate tuned for each method, no author of the
    method among the authors, several seeds, read first-hand. What it says of ``own_methods`` is
    reported by the authors of those methods.
    """

    id: str
    title: str
    location: str
    own_methods: tuple[str, ...]
    weight: float
    caveat: str


@cache
def comparisons() -> tuple[Comparison, ...]:
    """All bundled comparisons.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return read_comparisons(catalog_path("evidence.csv"))


@cache
def against_lora() -> Mapping[str, tuple[Comparison, ...]]:
    """The comparisons with LoRA, by method."""
    found = defaultdict(list)
    for row in comparisons():
        if row.comparator == "lora":
            found[row.method].append(row)
    return {method: tuple(rows) for method, rows in found.items()}


@cache
def evidence_sources() -> Mapping[str, EvidenceSource]:
    """All sources by id.

    Raises:
        UsageError: the bundled table is damaged.
    """
    return read_evidence_sources(catalog_path("evidence_sources.csv"))


def read_comparisons(path: Path) -> tuple[Comparison, ...]:
    """Read a table of comparisons.

    Raises:
        UsageError: the file is missing, empty or holds a bad row; the message says where.
    """
    return tuple(_comparison(row) for row in read_table(path, COLUMNS))


def read_evidence_sources(path: Path) -> Mapping[str, EvidenceSource]:
    """Read a table of sources.

    Raises:
        UsageError: the file is missing, empty or holds a bad row; the message says where.
    """
    return {row.text("id"): _source(row) for row in read_table(path, SOURCE_COLUMNS)}


def split(row: Row, column: str) -> tuple[str, ...]:
    """The words of a cell that are joined by ``;``, none where it is blank."""
    return tuple(filter(None, (row.optional(column) or "").split(";")))


def _comparison(row: Row) -> Comparison:
    return Comparison(
        method=row.text("method"),
        comparator=row.text("comparator"),
        model=row.text("model"),
        parameters=row.integer("parameters"),
        kind=row.text("kind"),
        task=row.text("task"),
        quantized=row.text("quantization") != "none",
        examples=row.optional_integer("examples"),
        higher_is_better=_yes(row, "higher_is_better"),
        point=row.number("point"),
        value=_measured(row, "value"),
        comparator_value=_measured(row, "comparator_value"),
        test_size=row.optional_integer("test_size"),
        source=row.text("source"),
    )


def _source(row: Row) -> EvidenceSource:
    weight = _measured(row, "weight")
    if weight > 1:
        raise row.error(f"column 'weight' is {weight:g}; it must be from 0 to 1")
    return EvidenceSource(
        id=row.text("id"),
        title=row.text("title"),
        location=row.optional("location") or "",
        own_methods=split(row, "own_methods"),
        weight=weight,
        caveat=row.optional("caveat") or "",
    )


def _measured(row: Row, column: str) -> float:
    """A result: a number that may be 0, which ``Row.number`` refuses."""
    text = row.text(column)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise row.error(f"column '{column}' is '{text}'; it must be a number of 0 or more")
    return number


def _yes(row: Row, column: str) -> bool:
    answer = row.text(column)
    if answer not in ("yes", "no"):
        raise row.error(f"column '{column}' is '{answer}'; it must be yes or no")
    return answer == "yes"
