"""Methods side by side: the same model, batch, lengths and GPU for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from peftadvisor.advisor.answering import dominated
from peftadvisor.advisor.estimating import from_simulated, variant_of, with_implied_quantization
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.errors import UnsupportedError
from peftadvisor.methods import find_method
from peftadvisor.profiles import SCHEMA_VERSION, Estimate
from peftadvisor.simulator.obtain import Progress, obtain
from peftadvisor.specs import Budget, Job, MethodSpec, RunSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One method's estimate, or why there is none.

    ``pareto`` says that no other method that fits is better in one of memory, time, money and
    evidence, and worse in none.
    """

    method: str
    estimate: Estimate | None = None
    reason: str = ""
    pareto: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The estimate's plain data, or the reason why there is none."""
        if self.estimate is None:
            return {"method": self.method, "reason": self.reason}
        return {**self.estimate.to_dict(), "pareto": self.pareto}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Every method that was asked for; those that fit come first, the fastest of them first."""

    run: RunSpec
    methods: tuple[Compared, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``estimates`` as the JSON contract has them, and what has none."""
        return {
            "schema_version": SCHEMA_VERSION,
            "estimates": [one.to_dict() for one in self.methods if one.estimate],
            "refused": [one.to_dict() for one in self.methods if not one.estimate],
        }


def compare(
    run: RunSpec,
    methods: Sequence[str],
    *,
    budget: Budget,
    job: Job | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Estimate the run with each of these methods in place of its own, at their defaults.

    What was not recorded before is recorded, one after another.
    """
    runs = [_with(run, name) for name in methods]
    work = partial(_compared, budget=budget, job=job, progress=progress)
    ready = [one for one in runs if variant_of(one).on_file()]
    done = dict(zip((one.method.name for one in ready), map_forked(work, ready), strict=True))
    found = [done.get(one.method.name) or work(one) for one in runs]
    fitting = [one.estimate for one in found if one.estimate and one.estimate.verdict == "fits"]
    marked = [_marked(one, fitting) for one in found]
    return Comparison(run=run, methods=tuple(sorted(marked, key=_order)))


def _with(run: RunSpec, method: str) -> RunSpec:
    return with_implied_quantization(
        dataclasses.replace(run, method=MethodSpec(name=find_method(method).name))
    )


def _compared(
    run: RunSpec, *, budget: Budget, job: Job | None, progress: Progress | None
) -> Compared:
    name = run.method.name
    if progress:
        progress(f"weighing {name}")
    try:
        simulated = obtain(variant_of(run), exact=False, progress=progress)
    except UnsupportedError as error:
        return Compared(method=name, reason=str(error))
    return Compared(method=name, estimate=from_simulated(run, simulated, budget, job=job))


def _marked(one: Compared, fitting: Sequence[Estimate]) -> Compared:
    if one.estimate is None or one.estimate.verdict != "fits":
        return one
    return dataclasses.replace(one, pareto=not dominated(one.estimate, fitting))


def _order(one: Compared) -> tuple[int, float]:
    if one.estimate is None:
        return 3, 0.0
    kind = ("fits", "tight", "oom").index(one.estimate.verdict)
    return kind, -one.estimate.time.samples_per_s
