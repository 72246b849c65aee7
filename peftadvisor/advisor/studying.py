"""All that a report tells of one run beyond its estimate: its course, its kernels, its neighbours.

Neighbours (other batches, lengths, GPUs, methods) are those whose recordings are on file; nothing
is recorded for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from peftadvisor.advisor import stops
from peftadvisor.advisor.estimating import from_simulated, variant_of, with_implied_quantization
from peftadvisor.advisor.what_if import WhatIf, what_if
from peftadvisor.cost_model.spending import Spending, spending
from peftadvisor.data.prices import load_prices
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.course import Course, course_of, saved_bytes_per_token
from peftadvisor.simulator.obtain import obtain
from peftadvisor.specs import Budget, PriceSpec, RunSpec, Verdict

Swept = Literal["batch", "length"]
SWEPT: tuple[Swept, ...] = ("batch", "length")
BEYOND = 2
"""Points of a sweep that are kept past the card's memory: enough to see that it grows on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """The run with one batch or length."""

    value: int
    device_bytes: int
    oom_probability: float
    verdict: Verdict
    step_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """How far a batch or a length can go; ``own`` is the run's, ``missing`` what is not on file."""

    name: Swept
    own: int
    points: tuple[SweepPoint, ...]
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The run on one GPU at one provider's price."""

    gpu: str
    gpu_name: str
    gpus: int
    verdict: Verdict
    device_bytes: int
    usable_bytes: int
    tokens_per_s: float
    provider: str
    instance: str
    region: str
    date: str
    source: str
    usd_per_hour: float
    spot_usd_per_hour: float | None
    usd_per_million_tokens: float
    usd_total: float | None
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was worked out of one run, and of methods beside it.

    ``saved_bytes_per_token`` has a method's activations that are held when backward begins, and
    says which methods run with checkpointing.
    ``missing`` says of what is left out why it is.
    """

    method: str
    course: Course | None = None
    spending: Spending | None = None
    saved_bytes_per_token: Mapping[str, float] = field(default_factory=dict, hash=False)
    sweeps: tuple[Sweep, ...] = ()
    offers: tuple[Offer, ...] = ()
    what_if: WhatIf | None = None
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, but for the recordings of the what-if."""
        told = {name: getattr(self, name) for name in self.__slots__ if name != "what_if"}
        sweeps, offers = ([asdict(one) for one in told[name]] for name in ("sweeps", "offers"))
        course, spent = self.course and self.course.to_dict(), self.spending
        parts = {"sweeps": sweeps, "offers": offers, "course": course}
        return {**told, **parts, "spending": spent and spent.to_dict()}


def study(estimate: Estimate, budget: Budget, others: Sequence[Estimate] = ()) -> Study:
    """All of it; ``others`` are estimates of other methods whose saved bytes are set beside."""
    run = with_implied_quantization(estimate.run)
    simulated = obtain(variant_of(run), exact=True)
    files, single = stops.Files(), run.gpus == 1
    missing = [] if single else ["the what-if page and the memory over the step: of one GPU only"]
    possible = single and not run.expandable_segments
    if run.expandable_segments:
        missing.append("the what-if page: it replays the allocator without expandable segments")
    carried = what_if(run, budget, files) if possible else None
    if possible and carried is None:
        missing.append("other batches, lengths and GPUs: no recording of this run has variables")
    return Study(
        method=run.method.name,
        course=course_of(simulated) if single else None,
        spending=spending(simulated, run),
        saved_bytes_per_token=_saved([estimate, *others]),
        sweeps=tuple(sweep(run, name, budget, files) for name in SWEPT),
        offers=_offers(run, budget, files),
        what_if=carried,
        missing=tuple(missing),
    )


def sweep(run: RunSpec, name: Swept, budget: Budget, files: stops.Files | None = None) -> Sweep:
    """The run with other batches, or lengths, up to what does not fit the card."""
    files = files or stops.Files()
    t = run.training
    if name == "batch":
        own, ways = t.micro_batch_size, [(n, t.seq_len) for n in stops.batches(run)]
    else:
        own, ways = t.seq_len, [(t.micro_batch_size, n) for n in stops.lengths(run)]
    points: list[SweepPoint] = []
    missing: list[int] = []
    for batch, length in ways:
        value = batch if name == "batch" else length
        there = stops.at(run, batch, length)
        found = files.known(there)
        if found is None:
            missing.append(value)
            continue
        points.append(_point(value, from_simulated(there, found, budget)))
        if sum(point.verdict == "oom" for point in points) >= BEYOND and value >= own:
            break
    return Sweep(name=name, own=own, points=tuple(points), missing=tuple(missing))


def _point(value: int, estimate: Estimate) -> SweepPoint:
    return SweepPoint(
        value=value,
        device_bytes=estimate.memory.device_peak_bytes,
        oom_probability=estimate.oom_probability,
        verdict=estimate.verdict,
        step_s=estimate.time.step_s,
        tokens_per_s=estimate.time.tokens_per_s,
    )


def _saved(estimates: Sequence[Estimate]) -> dict[str, float]:
    """By method, the first estimate of each; only of those on file."""
    saved: dict[str, float] = {}
    for estimate in estimates:
        run = with_implied_quantization(estimate.run)
        checkpointed = run.training.gradient_checkpointing != "none"
        name = f"{run.method.name}{', checkpointing' if checkpointed else ''}"
        found = None if name in saved else stops.Files().known(run)
        if found:
            saved[name] = saved_bytes_per_token(found)
    return saved


def _offers(run: RunSpec, budget: Budget, files: stops.Files) -> tuple[Offer, ...]:
    """The run at every price there is, of GPUs whose recording is on file; the cheapest first."""
    offers: list[Offer] = []
    for gpu in stops.gpus(run):
        there = stops.on(run, gpu)
        found = files.known(there)
        rows = [p for p in load_prices() if p.gpu_id == gpu.id and p.usd_per_gpu_hour]
        if found and rows:
            estimate = from_simulated(there, found, budget)
            offers += [_offer(estimate, row) for row in rows]
    return tuple(sorted(offers, key=_rank))


def _rank(offer: Offer) -> tuple[int, bool, float]:
    """What fits first, then prices that are sure, then the cheapest."""
    verdicts: tuple[Verdict, ...] = ("fits", "tight", "oom")
    unsure = offer.confidence == "low"
    return verdicts.index(offer.verdict), unsure, offer.usd_per_million_tokens


def _offer(estimate: Estimate, price: PriceSpec) -> Offer:
    run, time, hours = estimate.run, estimate.time, estimate.cost.hours_total
    hourly = (price.usd_per_gpu_hour or 0.0) * run.gpus
    spot = price.spot_usd_per_gpu_hour
    return Offer(
        gpu=run.gpu.id,
        gpu_name=run.gpu.name,
        gpus=run.gpus,
        verdict=estimate.verdict,
        device_bytes=estimate.memory.device_peak_bytes,
        usable_bytes=run.gpu.usable_bytes,
        tokens_per_s=time.tokens_per_s,
        provider=price.provider,
        instance=price.instance,
        region=price.region,
        date=price.date,
        source=price.source,
        usd_per_hour=hourly,
        spot_usd_per_hour=None if spot is None else spot * run.gpus,
        usd_per_million_tokens=hourly / 3600 / time.tokens_per_s * 1e6,
        usd_total=None if hours is None else hours * hourly,
        confidence=price.confidence,
    )
