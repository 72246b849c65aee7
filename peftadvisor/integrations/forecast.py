"""A live run forecast: predicted where all of it is known, else counted and called a lower bound.

On a GPU the prediction is ``advisor.estimate`` on what there is of the card, on the CPU the
simulated peak of tensors. The CUDA context of this process is there already when training begins:
what is usable then is what is free, and what this process holds, and the context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from peftadvisor.advisor.estimating import estimate
from peftadvisor.cuda.outside import context_bytes
from peftadvisor.data.gpus import custom_gpu, find_gpu
from peftadvisor.errors import UsageError
from peftadvisor.integrations.forecast_value import Forecast, Limit, Outcome
from peftadvisor.profilers.live import LiveRun, Parts, Run, live_run
from peftadvisor.profilers.room import Room, live_room
from peftadvisor.profilers.simulated import simulated_profile
from peftadvisor.specs import Budget, GpuSpec, RunSpec

Say = Callable[[str], None]
NO_LIMIT = Limit(size=None, source="on the CPU there is no limit but limit_bytes=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the user says of the place: a card instead of the live one, and how much of it."""

    gpu: GpuSpec | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the run is to fit: a GPU of the catalog, or None for the CPU, and what there is.

    ``unknown`` says why nothing can be predicted there, or is empty.
    """

    name: str
    gpu: GpuSpec | None
    limit: Limit
    unknown: str = ""


def forecast(parts: Parts, where: Where, say: Say) -> Forecast:
    """Predicted, or counted with every reason why it is not predicted."""
    live = live_run(parts if where.gpu is None else replace(parts, device="cuda"))
    place = _place(parts, where, live.counted.weights_bytes)
    reasons = [*live.unknown, *filter(None, [place.unknown])]
    if live.run is not None and not place.unknown:
        try:
            found = _predicted(live, live.run, place, say)
            return _at_least(found, live.more) if live.more else found
        except UsageError as error:
            reasons.append(str(error))
    return _lower_bound(live, place, tuple(reasons))


def _place(parts: Parts, where: Where, model_bytes: int) -> _Place:
    given = (
        None if where.limit_bytes is None else Limit(size=where.limit_bytes, source="limit_bytes")
    )
    if where.gpu is not None:
        whole = Limit(size=where.gpu.usable_bytes, source=f"the memory of {where.gpu.name}")
        return _Place(name=where.gpu.name, gpu=where.gpu, limit=given or whole)
    if parts.device == "cuda":
        return _live_place(live_room(parts.model, model_bytes), given)
    unknown = (
        ""
        if parts.device == "cpu"
        else (f"the model is on the device {parts.device}; name a card to predict for: gpu=")
    )
    return _Place(name=parts.device, gpu=None, limit=given or NO_LIMIT, unknown=unknown)


def _live_place(room: Room, given: Limit | None) -> _Place:
    """The card that the model is on; one that the catalog lacks has a limit all the same."""
    source = f"free on {room.gpu} now by {room.source}, and held by this process"
    try:
        gpu = find_gpu(room.gpu)
    except UsageError as error:
        limit = given or Limit(size=max(0, room.usable_bytes), source=source)
        remedy = "name a like card: gpu=, with limit_bytes="
        return _Place(name=room.gpu, gpu=None, limit=limit, unknown=f"{error}; {remedy}")
    free = max(1, room.usable_bytes) + context_bytes(gpu).typical
    return _Place(name=gpu.name, gpu=gpu, limit=given or Limit(size=free, source=source))


def _predicted(live: LiveRun, run: Run, place: _Place, say: Say) -> Forecast:
    return _on_cpu(live, run, place) if place.gpu is None else _on_gpu(live, run, place, say)


def _on_cpu(live: LiveRun, run: Run, place: _Place) -> Forecast:
    """The peak of tensors, to the byte; what libraries and the allocator hold beside is not it."""
    if live.processes > 1:
        raise UsageError("several processes that train on the CPU are not simulated")
    if run.training.quantization == "int8":
        raise UsageError("int8 layers take other kernels on the CPU than those that are simulated")
    memory = simulated_profile(run.model, run.method, run.training).memory
    size, peak = place.limit.size, memory.allocated_peak_bytes
    verdict: Outcome = "unknown" if size is None else "fits" if peak <= size else "oom"
    return Forecast(
        kind="predicted",
        device=place.name,
        needs_bytes=peak,
        limit=place.limit,
        verdict=verdict,
        parts=memory.owner_bytes,
        allocated_peak_bytes=peak,
        lengths=live.lengths,
        run=run,
    )


def _on_gpu(live: LiveRun, run: Run, place: _Place, say: Say) -> Forecast:
    assert place.gpu is not None
    assert place.limit.size is not None
    asked = RunSpec(
        model=run.model,
        method=run.method,
        training=run.training,
        gpu=custom_gpu(place.gpu, place.limit.size),
        gpus=live.processes,
    )
    found = estimate(asked, budget=Budget(), progress=lambda text: say(f"pre-flight: {text}"))
    parts = asdict(found.memory.breakdown)
    return Forecast(
        kind="predicted",
        device=place.name,
        needs_bytes=found.memory.device_peak_bytes,
        limit=place.limit,
        verdict=found.verdict,
        parts={name.removesuffix("_bytes"): size for name, size in parts.items()},
        oom_probability=found.oom_probability,
        allocated_peak_bytes=found.memory.allocated_peak_bytes,
        reserved_peak_bytes=found.memory.reserved_peak_bytes,
        lengths=live.lengths,
        run=run,
    )


def _at_least(found: Forecast, more: tuple[str, ...]) -> Forecast:
    """A prediction as a lower bound, where the run does more than what was simulated."""
    verdict: Outcome = "oom" if found.verdict == "oom" else "unknown"
    return replace(found, kind="lower bound", verdict=verdict, unknown=more, oom_probability=None)


def _lower_bound(live: LiveRun, place: _Place, reasons: tuple[str, ...]) -> Forecast:
    """What is counted; above the limit it does not fit, below it nobody knows."""
    least, size = live.counted, place.limit.size
    left_out = tuple(f"{what}: nothing is counted of them" for what in live.counted.left_out)
    return Forecast(
        kind="lower bound",
        device=place.name,
        needs_bytes=least.total_bytes,
        limit=place.limit,
        verdict="oom" if size is not None and least.total_bytes > size else "unknown",
        parts={
            "weights": least.weights_bytes,
            "gradients": least.gradient_bytes,
            "optimizer states": least.optimizer_bytes,
        },
        unknown=(*reasons, *left_out),
        lengths=live.lengths,
    )
