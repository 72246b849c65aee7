"""Scores of published runs as a distribution: tails, quantiles, and the risk they give."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftadvisor.advisor import estimate
from peftadvisor.advisor.estimating import variant_of
from peftadvisor.cost_model.memory import oom_probability, predict_memory
from peftadvisor.cost_model.uncertainty import (
    WIDTH,
    alike,
    bundled_scores,
    interval_factors,
    kind_of,
    scores_of,
)
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.memory_errors import Kind, MemoryMiss, memory_misses
from peftadvisor.data.models import find_model
from peftadvisor.simulator.regimes import regime_of
from peftadvisor.simulator.trace import Owner, Phase
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec
from peftadvisor.units import GIB

L40S = find_gpu("l40s")
REGIME = regime_of((4, 512, 128), {})


def miss(source: str, ratio: float) -> MemoryMiss:
    measured = round(ratio * 10**9)
    return MemoryMiss(
        row_id="x", source=source, kind="plain", measured_bytes=measured, predicted_bytes=10**9
    )


def test_one_score_is_a_t_around_it() -> None:
    scores = scores_of([miss("a", 1.1)])
    middle = math.log(1.1)
    assert scores.above(middle) == pytest.approx(0.5, abs=1e-6)
    # Student's t with 3 degrees of freedom is above 2.353 with 5 %.
    assert scores.above(middle + 2.353363 * WIDTH) == pytest.approx(0.05, abs=1e-4)
    low, high = scores.factors()
    assert low == pytest.approx(1.1 * math.exp(-2.353363 * WIDTH), rel=1e-4)
    assert high == pytest.approx(1.1 * math.exp(2.353363 * WIDTH), rel=1e-4)


def test_a_source_counts_once() -> None:
    """Nine rows of one source and one row of another: each source is half."""
    scores = scores_of([*[miss("a", 1.0)] * 9, miss("b", 1.5)])
    assert scores.above(math.log(1.25)) == pytest.approx(0.5, abs=1e-3)
    assert scores.weights.sum() == pytest.approx(1.0)


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=30), st.floats(0.02, 0.98))
def test_quantiles_and_tails_agree(ratios: list[float], share: float) -> None:
    scores = scores_of([miss(str(n % 3), r) for n, r in enumerate(ratios)])
    assert scores.above(scores.quantile(share)) == pytest.approx(1 - share, abs=1e-6)


@given(st.integers(1, 200), st.integers(1, 200))
def test_more_memory_is_more_risk(a: int, b: int) -> None:
    risks = [oom_probability(n * GIB // 2, L40S) for n in sorted((a, b))]
    assert 0 <= risks[0] <= risks[1] <= 1


def test_the_bundled_scores_are_of_real_runs() -> None:
    misses = memory_misses()
    assert {m.source for m in misses} == {"fms_acceleration", "peft_metamath"}
    for kind in get_args(Kind):
        assert np.abs(bundled_scores(kind).values).max() < 0.6
        low, high = interval_factors(kind)
        assert 0.85 < low < 1.01 < high < 1.6


def test_kinds_of_run_are_scored_apart() -> None:
    kinds = [kind_of("torch", 1), kind_of("fused-linear", 1), kind_of("torch", 2)]
    assert kinds == ["plain", "fused", "several"]
    fused = replace(miss("a", 1.2), kind="fused")
    assert alike([fused, miss("a", 1.0)], "plain") == [miss("a", 1.0)]
    assert alike([fused, miss("a", 1.0)], "fused") == [fused]
    assert alike([miss("a", 1.0)], "several") == [miss("a", 1.0)]


@dataclass(frozen=True)
class Fake:
    """A run that holds ``held`` GiB, and at its end a block twice as large as a gap it left."""

    pieces: tuple[int, ...]
    events: tuple[int, ...]

    def peak(self) -> Any:
        held = most = 0
        for event in self.events:
            held += self.pieces[abs(event) - 1] * (1 if event > 0 else -1)
            most = max(most, held)
        owner = {Owner.ACTIVATION: most}
        return type("Peak", (), {"by_owner": owner, "phase": Phase.FORWARD, "operator": "mm.x"})

    def expand(self) -> Any:
        return np.array(self.events), np.array(self.pieces)


# 10 GiB come and go in pieces of 1, then 15 in pieces of 3: cached pieces of 1 are too small.
SMALL, LARGE = 10, 5
ORDER = (*range(1, SMALL + 1), *range(-SMALL, 0), *range(SMALL + 1, SMALL + LARGE + 1))
REUSE = Fake((*[GIB] * SMALL, *[3 * GIB] * LARGE), ORDER)


def on_card(gib: int, **changes: Any) -> RunSpec:
    """Some run on an L40S with so much memory."""
    return RunSpec(
        model=find_model("t5-small"),
        method=MethodSpec(name="lora"),
        training=TrainingSpec(),
        gpu=replace(L40S, usable_bytes=gib * GIB),
        **changes,
    )


def test_a_full_card_gives_back_what_is_cached() -> None:
    """25 GiB are reserved on a large card; on one of 20 GiB the first ten are given back."""
    run: Any = REUSE
    large = predict_memory(run, on_card(48)).memory
    assert large.reserved_peak_bytes // GIB == 25
    small = predict_memory(run, on_card(20))
    assert small.memory.device_peak_bytes <= 20 * GIB
    assert small.memory.allocated_peak_bytes == large.allocated_peak_bytes
    assert small.oom_probability < 0.5
    parts = small.memory.breakdown
    assert parts.total_bytes == small.memory.device_peak_bytes
    tiny = predict_memory(run, on_card(15))
    assert tiny.oom_probability > 0.5
    assert tiny.memory.device_peak_bytes > 15 * GIB


def test_expandable_segments_reserve_what_is_needed() -> None:
    """One range: 10 GiB, both workspaces behind it, then what does not fit the freed 10 GiB.

    Three pieces of 3 GiB fit there, two more follow: 16 GiB and 2 · 8,519,680 B, in 20 MiB pages.
    Plain segments of 1 GiB hold no piece of 3, so that those 15 GiB come on top.
    """
    run: Any = REUSE
    plain = predict_memory(run, on_card(48)).memory
    ranges = predict_memory(run, on_card(48, expandable_segments=True)).memory
    assert ranges.reserved_peak_bytes == 821 * 20 * 2**20
    assert plain.reserved_peak_bytes == 25 * GIB + 2 * 10 * 2**20
    assert ranges.allocated_peak_bytes == plain.allocated_peak_bytes
    assert ranges.breakdown.total_bytes == ranges.device_peak_bytes


# 10 GiB come and go, 1 GiB stays in their place, 9.5 GiB do not fit the rest.
SLIVER = Fake((10 * GIB, GIB, 19 * GIB // 2), (1, -1, 2, 3))


def test_expandable_segments_move_the_boundary() -> None:
    """A segment that is used in part cannot be given back: 19.5 GiB, where 10.5 would do."""
    run: Any = SLIVER
    plain = predict_memory(run, on_card(15))
    ranges = predict_memory(run, on_card(15, expandable_segments=True))
    assert plain.memory.device_peak_bytes > 15 * GIB
    assert plain.oom_probability > 0.5
    assert ranges.memory.device_peak_bytes <= 15 * GIB
    assert ranges.oom_probability < 0.02
    none = predict_memory(run, on_card(10, expandable_segments=True))
    assert none.oom_probability > 0.5


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("model", ["t5-large", "meta-llama/Llama-3.2-3B"])
def test_expandable_segments_of_bundled_runs(model: str, method: str) -> None:
    """Between what is allocated and what plain segments reserve, and nothing else is different."""
    run = RunSpec(
        model=find_model(model),
        method=MethodSpec(name=method),
        training=TrainingSpec(micro_batch_size=4),
        gpu=find_gpu("a100-80g"),
    )
    plain = estimate(run, budget=Budget())
    ranges = estimate(replace(run, expandable_segments=True), budget=Budget())
    assert ranges.memory.allocated_peak_bytes == plain.memory.allocated_peak_bytes
    assert plain.memory.allocated_peak_bytes <= ranges.memory.reserved_peak_bytes
    assert ranges.memory.reserved_peak_bytes <= plain.memory.reserved_peak_bytes
    assert ranges.oom_probability <= plain.oom_probability
    assert (ranges.flops, ranges.time) == (plain.flops, plain.time)
    assert ranges.to_dict()["run"]["expandable_segments"] is True
    assert variant_of(ranges.run).member(REGIME) == variant_of(run).member(REGIME)
