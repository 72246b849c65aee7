"""Trained parameters against 45 logged runs, to the printed digit: formula and real module.

``benchmarks/logged_counts.py`` prints the same with the simulation's counts beside.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from peftadvisor.data.measured_runs import LoggedCount, logged_counts
from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method, method_names
from peftadvisor.methods.attached import attach
from peftadvisor.methods.sites import Layout, layout_of
from peftadvisor.simulator.build import build_model
from peftadvisor.specs import TrainingSpec

ROWS = [row for row in logged_counts() if row.method in method_names()]


def model(name: str) -> Any:
    return build_model(find_model(name), TrainingSpec())


@cache
def layout(name: str) -> Layout:
    return layout_of(model(name))


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-{row.logged_as}")
def test_formula_and_module_give_the_logged_count(row: LoggedCount) -> None:
    method = find_method(row.method)
    formula = method.trainable(layout(row.model), method.defaults)
    assert f"{formula:.6e}" == row.printed
    assert formula == row.trained == attach(method, model(row.model)).trained


@pytest.mark.parametrize(
    ("name", "base"),
    [("t5-large", 737_668_096), ("t5-3b", 2_851_598_336), ("t5-11b", 11_307_321_344)],
)
def test_base_totals(name: str, base: int) -> None:
    assert layout(name).total == base
    assert {row.base for row in logged_counts() if row.model == name} == {base}
