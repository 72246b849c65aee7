"""One run, predicted: recording, memory, time, cost and verdict put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from peftadvisor.advisor.asked import asked_about
from peftadvisor.advisor.evidence import weigh
from peftadvisor.cost_model.loading import cast_on_card, loading
from peftadvisor.cost_model.memory import PredictedMemory, predict_loading, predict_memory
from peftadvisor.cost_model.rates import device_rates
from peftadvisor.cost_model.sharding import shard
from peftadvisor.cost_model.time import COMMUNICATION, predict_flops, predict_time, step_seconds
from peftadvisor.cuda.outside import context_bytes
from peftadvisor.data.prices import cheapest_price, load_prices
from peftadvisor.errors import UnknownNameError
from peftadvisor.methods import find_method
from peftadvisor.profiles import Cost, Estimate, Memory, Provenance, StepTime
from peftadvisor.simulator.library import Variant, attention_kernels
from peftadvisor.simulator.obtain import Progress, Simulated, obtain
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.specs import Budget, Job, PriceSpec, RunSpec, Sharding, TrainingSpec, Verdict
from peftadvisor.units import format_bytes

LIKELY_OOM = 0.5
_HELD: Mapping[Sharding, str] = {
    "ddp": "all weights, gradients and optimizer states",
    "zero-1": "all weights and gradients, and its share of the optimizer states",
    "zero-2": "all weights, and its share of gradients and optimizer states",
    "zero-3": "its share of weights, gradients and optimizer states, and whole layers in turn",
    "fsdp": "its share of weights, gradients and optimizer states, and whole layers in turn",
}
LEAST_SHARE = 0.005
"""Of a step, below which a class of kernels is not named."""


def estimate(
    run: RunSpec,
    *,
    budget: Budget,
    job: Job | None = None,
    price_provider: str | None = None,
    progress: Progress | None = None,
) -> Estimate:
    """Predict one run; ``job`` is what it is for, as far as that is known.

    Raises:
        UsageError: the run cannot exist, or cannot be predicted with what is installed.
    """
    run = with_implied_quantization(run)
    simulated = obtain(variant_of(run), exact=True, progress=progress)
    return from_simulated(run, simulated, budget, price_provider, job)


def variant_of(run: RunSpec) -> Variant:
    """What the run's recording depends on."""
    return Variant(run.model, run.method, run.training, attention_kernels(run.gpu))


def with_implied_quantization(run: RunSpec) -> RunSpec:
    """The run with the base quantization that its method brings (QLoRA), if the user set none."""
    return dataclasses.replace(run, training=implied_training(run.method.name, run.training))


def implied_training(method: str, training: TrainingSpec) -> TrainingSpec:
    """Training settings with what the method implies: QLoRA's quantized base."""
    implied = find_method(method).quantization
    if implied is None or training.quantization != "none":
        return training
    return dataclasses.replace(training, quantization=implied)


def from_simulated(
    run: RunSpec,
    simulated: Simulated,
    budget: Budget,
    price_provider: str | None = None,
    job: Job | None = None,
) -> Estimate:
    """The estimate that a recording, set to the run's batch and lengths, gives."""
    predicted, of_loading = _needed(shard(simulated, run), run)
    memory, risk = predicted.memory, predicted.oom_probability
    uses = simulated.kernel_uses()
    time = predict_time(simulated, uses, run)
    return Estimate(
        run=run,
        parameters=simulated.parameters(),
        memory=memory,
        flops=predict_flops(uses, run.training),
        time=time,
        cost=_cost(run, time, samples_of(run, budget, job), price_provider),
        verdict=verdict(risk, budget.max_oom_risk),
        oom_probability=risk,
        evidence=weigh(run.method.name, asked_about(run.model, run.training, job)),
        reasons=(*_reasons(run, memory, _bound(run, time, uses), simulated), *of_loading),
        provenance=Provenance(
            engine="simulate",
            versions=dict(simulated.versions),
            recording=simulated.source + (f" ({simulated.note})" if simulated.note else ""),
            calibration=device_rates(run.gpu).source,
        ),
    )


def verdict(risk: float, accepted: float) -> Verdict:
    """``fits`` up to the accepted risk, ``oom`` where running out is more likely than not."""
    if risk <= accepted:
        return "fits"
    return "oom" if risk > LIKELY_OOM else "tight"


def _needed(there: Simulated, run: RunSpec) -> tuple[PredictedMemory, tuple[str, ...]]:
    """What training takes, or loading where that takes more, and what is to be said of loading."""
    training = predict_memory(there, run)
    trained, load = training.memory, loading(there, run)
    if load and load.allocated_peak_bytes > trained.allocated_peak_bytes:
        before = predict_loading(load, run)
        if before.memory.device_peak_bytes > trained.device_peak_bytes:
            return before, (
                f"loading the weights takes the most ({load.during}); once they are there, "
                f"training takes {format_bytes(trained.device_peak_bytes)}",
            )
    cast = cast_on_card(there, run)
    usable = run.gpu.usable_bytes
    full = context_bytes(run.gpu).typical + cast.allocated_peak_bytes if cast else 0
    if trained.device_peak_bytes <= usable < full:
        return training, (
            f"load the weights in {run.training.dtype}: in fp32, to be cast on the card, they "
            f"would take {format_bytes(full)} before training starts",
        )
    return training, ()


def samples_of(run: RunSpec, budget: Budget, job: Job | None = None) -> float | None:
    """Samples of the whole job, by its steps, its epochs (one if not said) or its tokens.

    None where its size is not known.
    """
    training = run.training
    if job is not None and job.steps is not None:
        batch = training.micro_batch_size * training.gradient_accumulation_steps * run.gpus
        return float(job.steps * batch)
    if job is not None and job.examples is not None:
        return job.examples * (job.epochs or 1.0)
    if budget.total_tokens is None:
        return None
    target = training.target_len if run.model.config.get("is_encoder_decoder") else 0
    return budget.total_tokens / (training.seq_len + target)


def _cost(run: RunSpec, time: StepTime, samples: float | None, provider: str | None) -> Cost:
    price = _price(run, provider)
    hours = None if samples is None else samples / time.samples_per_s / 3600
    if price is None or price.usd_per_gpu_hour is None:
        return Cost(hours_total=hours)
    hourly = price.usd_per_gpu_hour * run.gpus
    return Cost(
        usd_per_hour=hourly,
        usd_total=None if hours is None else hours * hourly,
        hours_total=hours,
        price_source=f"{price.provider} {price.instance}, {price.date}".replace(" ,", ","),
    )


def _price(run: RunSpec, provider: str | None) -> PriceSpec | None:
    if provider is None:
        return cheapest_price(run.gpu.id)
    rows = load_prices()
    if provider not in {row.provider for row in rows}:
        raise UnknownNameError("price", provider, {row.provider for row in rows})
    offers = [
        row
        for row in rows
        if row.gpu_id == run.gpu.id and row.provider == provider and row.usd_per_gpu_hour
    ]
    return min(offers, key=lambda row: row.usd_per_gpu_hour or 0.0, default=None)


def _bound(run: RunSpec, time: StepTime, uses: Sequence[KernelUse]) -> str:
    """What bounds the step, and what it is spent on, the most first."""
    by_class = dict(step_seconds(uses, run.training, run.gpu))
    if run.gpus > 1:
        by_class[COMMUNICATION] = time.step_s - sum(by_class.values())
    ordered = sorted(by_class.items(), key=lambda item: -item[1])
    named = [(name, s / time.step_s) for name, s in ordered if s >= LEAST_SHARE * time.step_s]
    spent = ", ".join(f"{name} {100 * share:.0f} %" for name, share in named)
    return f"the step is bound by {time.bound}: {spent} of its time"


def _reasons(run: RunSpec, memory: Memory, bound: str, simulated: Simulated) -> tuple[str, ...]:
    parts = dataclasses.asdict(memory.breakdown)
    largest = max(parts, key=lambda name: parts[name])
    free = run.gpu.usable_bytes - memory.device_peak_bytes
    room = f"{format_bytes(free)} are left" if free >= 0 else f"{format_bytes(-free)} are missing"
    reasons = [
        f"the peak falls in {memory.peak_phase} ({memory.peak_op}); "
        f"{largest.removesuffix('_bytes')} hold {format_bytes(parts[largest])} of "
        f"{format_bytes(memory.device_peak_bytes)}; {room} on {run.gpu.name}",
        bound,
    ]
    if run.gpus > 1:
        reasons.append(
            f"data parallel, {run.sharding}: each of {run.gpus} GPUs holds {_HELD[run.sharding]}"
        )
    if simulated.note:
        reasons.append(simulated.note)
    return tuple(reasons)
