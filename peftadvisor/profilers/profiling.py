"""One run measured on a device of this machine, as a profile."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from peftadvisor.cuda.readings import Card, Reading, open_card
from peftadvisor.data.gpus import find_gpu
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.profilers import instruments
from peftadvisor.profilers.devices import Bench, Held, index_of, open_bench
from peftadvisor.profilers.provenance import provenance
from peftadvisor.profilers.sampling import Sampler
from peftadvisor.profilers.simulated import THE_REST
from peftadvisor.profilers.workload import RANDOM, Given, Workload
from peftadvisor.profiles import DeviceUse, Parameters, PhaseMemory, PhaseTime, Profile
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

Say = Callable[[str], None]
OpenBench = Callable[[str], Bench]
MEMORY_STEPS = 2
"""Optimizer states are born in the first step; the second is like all that follow."""


def measured_profile(
    model: ModelSpec,
    method: MethodSpec,
    training: TrainingSpec,
    device: str,
    *,
    steps: int = 5,
    say: Say = lambda _: None,
    bench_of: OpenBench = open_bench,
    given: Given = RANDOM,
) -> Profile:
    """The run with random weights and one random batch, or what is given, here and now.

    Times are taken alone, then FLOPs counted, then memory watched on a new model, whose
    optimizer states are yet to be made. FLOPs and memory are those of the longest batch.

    Raises:
        UsageError: the model or the combination cannot be built, or there is no such device.
    """
    with _card(device) as (card, why):
        before = card.read() if card else Reading()
        bench = bench_of(device)
        bench.fresh()
        build = partial(Workload, model, method, training, bench.where, given)
        say("building the model")
        workload = build()
        say("timing steps")
        with Sampler(card) as sampler:
            took = instruments.seconds(workload, bench, steps)
        tokens = workload.step_tokens
        use = sampler.use(before, took.median_s, tokens) if card else _unknown(why)
    say("counting FLOPs")
    counted = instruments.flops(workload.hold_longest())
    fvcore = instruments.fvcore_forward(workload)
    parameters, static = _parameters(workload), workload.static_bytes()
    states = _state_bytes(workload)
    del workload
    say("recording allocations")
    bench.fresh()
    mfu = _mfu(bench.name, training, counted, took.median_s) if given.even else None
    held = bench.held(build().hold_longest(), MEMORY_STEPS)
    return Profile(
        engine="measure",
        device=bench.name,
        model=model.id,
        method=method,
        training=training,
        parameters=parameters,
        memory=_memory(held, static, states, sampler.host_peak_bytes),
        phase_flops=counted,
        time=_time(took, training, tokens, mfu),
        provenance=provenance(
            "measure",
            "; ".join(filter(None, (f"made on {platform.machine()}, {_today()}", str(given)))),
            _driver(card),
        ),
        timeline=held.timeline,
        device_use=_with_missing(use, held.missing),
        fvcore=fvcore,
    )


@contextmanager
def _card(device: str) -> Iterator[tuple[Card | None, str]]:
    """What the driver tells of the device, or why it tells nothing; no reason for the CPU."""
    if not device.startswith("cuda"):
        yield None, ""
        return
    with ExitStack() as stack:
        card, why = None, ""
        try:
            card = stack.enter_context(open_card(index_of(device)))
        except UsageError as error:
            why = str(error)
        yield card, why


def _unknown(why: str) -> DeviceUse | None:
    return DeviceUse(missing={"readings": why}) if why else None


def _with_missing(use: DeviceUse | None, missing: dict[str, str]) -> DeviceUse | None:
    """What the driver told, and what the allocator did not."""
    if not missing:
        return use
    use = use or DeviceUse()
    return replace(use, missing={**use.missing, **missing})


def _driver(card: Card | None) -> dict[str, str]:
    import torch

    more = {"cuda": torch.version.cuda} if torch.version.cuda else {}
    return {**more, "driver": card.driver_version} if card else more


def _memory(held: Held, static: int, states: int, host_peak_bytes: int) -> PhaseMemory:
    phases: dict[str, int] = {}
    for (_, phase), most in held.phase_bytes.items():
        phases[phase] = max(phases.get(phase, 0), most)
    step, phase = held.peak
    peak = held.peak_bytes
    parts = {"parameters": static, "optimizer states": states if step > 1 else 0}
    being_born = step == 1 and phase == "optimizer"
    return PhaseMemory(
        static_bytes=static,
        allocated_peak_bytes=peak,
        peak_phase=phase,
        phase_peak_bytes=phases,
        host_peak_bytes=host_peak_bytes,
        reserved_peak_bytes=held.reserved_peak_bytes,
        owner_bytes={} if being_born else {**parts, THE_REST: peak - sum(parts.values())},
    )


def _parameters(workload: Workload) -> Parameters:
    trained = workload.trained
    return Parameters(
        total=sum(getattr(p, "logical_numel", p.numel()) for p in workload.model.parameters()),
        trainable=sum(p.numel() for p in trained),
        stored_bytes=sum(p.numel() * p.element_size() for p in trained),
    )


def _state_bytes(workload: Workload) -> int:
    """Of the optimizer's tensors, after a step."""
    states = workload.optimizer.state.values()
    tensors = [t for state in states for t in state.values() if hasattr(t, "untyped_storage")]
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())


def _samples(training: TrainingSpec) -> int:
    return training.micro_batch_size * training.gradient_accumulation_steps


def _time(
    took: instruments.Seconds, training: TrainingSpec, tokens: int, mfu: float | None
) -> PhaseTime:
    samples = _samples(training)
    low, high = took.quartiles_s
    return PhaseTime(
        step_s=took.median_s,
        low_s=low,
        high_s=high,
        phase_s=took.phases,
        tokens_per_s=tokens / took.median_s,
        samples_per_s=samples / took.median_s,
        steps=len(took.steps),
        mfu=mfu,
    )


def _mfu(name: str, training: TrainingSpec, counted: dict[str, int], step_s: float) -> float | None:
    """FLOPs counted per second and dense peak of the card at the compute dtype."""
    try:
        peak = find_gpu(name).peak_flops_per_s.get(training.dtype)
    except UnknownNameError:
        return None
    return sum(counted.values()) / step_s / peak if peak else None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
