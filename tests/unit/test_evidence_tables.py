"""The tables of published comparisons: known words, errors that name a cell, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from peftadvisor.advisor.evidence import LORA_VARIANTS, POOLED
from peftadvisor.advisor.findings import _GROUPS, _WHEN
from peftadvisor.advisor.pooling import NEIGHBOURS
from peftadvisor.data import evidence as tables
from peftadvisor.data.evidence import (
    COLUMNS,
    against_lora,
    comparisons,
    evidence_sources,
    read_comparisons,
    read_evidence_sources,
)
from peftadvisor.data.evidence_rules import finding_rows, full_verdicts
from peftadvisor.data.recommendations import load_recommendations
from peftadvisor.errors import UsageError
from peftadvisor.methods import method_names
from peftadvisor.specs import Task

OTHER_METHODS = {
    "bdlora",
    "bitfit-adapter",
    "bottleneck-adapter",
    "llamapro",
    "lora-neftune",
    "mica",
    "milora",
    "no-tuning",
    "prompt-bitfit-adapter",
    "qpissa",
    "series-adapter",
}
OTHER_TASKS = {"commonsense", "generation", "image", "rl"}


def test_every_comparison_is_of_known_words() -> None:
    # 460 collected rows, of which 6 state no two numbers: these are findings.
    assert len(comparisons()) == 454
    for row in comparisons():
        assert row.method in {*method_names(), *OTHER_METHODS}
        assert row.comparator in {
            "lora",
            "full",
            "qlora",
            "galore",
            "bottleneck-adapter",
            "no-tuning",
        }
        assert row.source in evidence_sources()
        assert row.task in {*get_args(Task), *OTHER_TASKS}
        assert row.kind in {"decoder", "encoder", "encoder-decoder", "diffusion"}
        assert 5e7 < row.parameters < 7e10
        assert row.point in {1.0, 0.1, 0.02, 0.01}
        assert max(row.value, row.comparator_value) <= (100 if row.point == 1 else 10)
        assert row.higher_is_better == (row.point != 0.02)


def test_only_comparisons_with_lora_count() -> None:
    assert sum(map(len, against_lora().values())) == 432
    assert "apollo" not in against_lora()
    assert {row.comparator for rows in against_lora().values() for row in rows} == {"lora"}


def test_sources_have_weights() -> None:
    sources = evidence_sources()
    assert len(sources) == 28
    assert sources["lora-learns-less"].weight == 1.0
    assert sources["lialin-interim"].weight == 0.1
    for source in sources.values():
        assert 0 < source.weight <= 1
        assert source.title
        assert source.location
        assert set(source.own_methods) <= {*method_names(), *OTHER_METHODS}


def test_findings_and_verdicts_are_of_known_words() -> None:
    rules = [row.rule for row in finding_rows()]
    assert len(set(rules)) == len(rules)
    assert not set(rules) & set(load_recommendations())
    for row in finding_rows():
        assert set(row.methods) <= {*method_names(), *_GROUPS}
        assert set(row.tasks) <= set(get_args(Task))
        assert row.when in _WHEN
    assert set(full_verdicts()) - {""} <= set(get_args(Task))
    for verdict in full_verdicts().values():
        assert set(verdict.sources) <= set(evidence_sources())


def test_tables_of_methods_name_methods() -> None:
    assert set(method_names()) >= LORA_VARIANTS | set(POOLED)
    words = {*get_args(Task), *OTHER_TASKS}
    assert all(pair <= words and len(pair) == 2 for pair in NEIGHBOURS)


@pytest.mark.parametrize(
    ("column", "text", "problem"),
    [
        ("value", "-1", "column 'value' is '-1'; it must be a number of 0 or more"),
        ("value", "nan", "column 'value' is 'nan'; it must be a number of 0 or more"),
        ("higher_is_better", "maybe", "column 'higher_is_better' is 'maybe'; it must be yes or no"),
    ],
)
def test_a_bad_comparison_names_its_cell(
    column: str, text: str, problem: str, tmp_path: Path
) -> None:
    good = dict.fromkeys(COLUMNS, "1") | {"higher_is_better": "yes"}
    path = tmp_path / "evidence.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{','.join((good | {column: text}).values())}\n")
    with pytest.raises(UsageError, match="line 2") as caught:
        read_comparisons(path)
    assert problem in str(caught.value)


def test_a_weight_is_at_most_one(tmp_path: Path) -> None:
    path = tmp_path / "sources.csv"
    path.write_text(f"{','.join(tables.SOURCE_COLUMNS)}\na,a,a,a,,a,a,a,1.5,\n")
    with pytest.raises(UsageError, match="'weight' is 1.5; it must be from 0 to 1"):
        read_evidence_sources(path)


def fastest_ms(call: Callable[[], object]) -> float:
    """Processor time, the least of several runs: others may be using the machine."""
    times = []
    for _ in range(7):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def load() -> None:
    for cached in (comparisons, against_lora, evidence_sources):
        cached.cache_clear()
    against_lora()
    evidence_sources()


def test_the_tables_load_quickly() -> None:
    assert fastest_ms(load) < 15
