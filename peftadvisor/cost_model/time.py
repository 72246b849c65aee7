"""Step time from the recorded kernels: the card's queue against the host that fills it.

    step = micro-batches · micro + max(GPU of the update, host of the update)
    micro = max(max(G_f, H_f) + G_b, H_f + H_b)

in seconds; G sums ``kernel_seconds`` and starts of all kernels in forward (f, with the loss) and
backward (b, with recomputation), H is the host's time to dispatch them. The host runs ahead of
the card within a micro-batch and is waited for at its end. Constants are ``DeviceRates``. What
several GPUs exchange is added (``communication``). Leaves out data loading, transfers to the card,
and operators that wait for the card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from peftadvisor.cost_model.communication import exposed_seconds
from peftadvisor.cost_model.kernel_classes import Class, Floats, Kernels, tabulate
from peftadvisor.cost_model.kernel_time import kernel_seconds
from peftadvisor.cost_model.rates import device_rates
from peftadvisor.data.rates import DeviceRates
from peftadvisor.profiles import Flops, StepTime
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import GpuSpec, RunSpec, TrainingSpec

BACKWARD_DISPATCH = 0.7
"""Host's time of one operator in backward, which is no Python, over one in forward."""

LAUNCHES = "launches"
COMMUNICATION = "communication"
_PRODUCTS = ("mm.", "addmm.", "int8_product.")
_NAMES = {kind: kind.name.lower() for kind in Class}


@dataclass(frozen=True, slots=True)
class StepParts:
    """Seconds of one optimizer step, summed in two ways.

    ``by_class``: matmul, attention, elementwise, dequantization, optimizer, and launches (starts
    of kernels, and waiting for the host). ``by_bound``: compute, memory bandwidth, kernel launches.
    ``card_s`` are the card's own of a micro-batch and the update, phase × 1.
    """

    by_class: Mapping[str, float]
    by_bound: Mapping[str, float]
    card_s: Floats

    @property
    def step_s(self) -> float:
        """The step."""
        return sum(self.by_class.values())

    @property
    def bound(self) -> str:
        """What most of the step is bound by."""
        return max(self.by_bound, key=lambda name: self.by_bound[name])


def predict_flops(uses: Sequence[KernelUse], training: TrainingSpec) -> Flops:
    """FLOPs of one optimizer step: every micro-batch and the update."""
    micro = training.gradient_accumulation_steps
    by_phase = dict.fromkeys(Phase, 0)
    for use in uses:
        by_phase[use.phase] += use.count * use.flops
    again = training.gradient_checkpointing != "none" and training.quantization != "none"
    moved = _recomputed_products(uses) if again else 0
    by_phase[Phase.BACKWARD] -= moved
    by_phase[Phase.RECOMPUTE] += moved
    return Flops(
        forward=micro * (by_phase[Phase.FORWARD] + by_phase[Phase.LOSS]),
        backward=micro * by_phase[Phase.BACKWARD],
        recompute=micro * by_phase[Phase.RECOMPUTE],
        optimizer=by_phase[Phase.OPTIMIZER],
    )


def _recomputed_products(uses: Sequence[KernelUse]) -> int:
    """FLOPs of a quantized base that are recomputation though recorded as backward.

    Gradients are off inside the function that multiplies by a quantized weight, so when it runs
    again for a checkpoint the recorder takes it for backward. A frozen weight has one product
    back for each one forward, an adapter's two of which one is recomputed besides:

        moved = backward - forward - recomputed, over the products of linear layers
    """
    flops = dict.fromkeys(Phase, 0)
    for use in uses:
        if use.name.startswith(_PRODUCTS):
            flops[use.phase] += use.count * use.flops
    return max(0, flops[Phase.BACKWARD] - flops[Phase.FORWARD] - flops[Phase.RECOMPUTE])


def step_seconds(
    uses: Sequence[KernelUse], training: TrainingSpec, gpu: GpuSpec
) -> Mapping[str, float]:
    """Seconds of one optimizer step by class of kernel; the step takes their sum."""
    return step_parts(uses, training, gpu, device_rates(gpu)).by_class


def step_parts(
    uses: Sequence[KernelUse], training: TrainingSpec, gpu: GpuSpec, rates: DeviceRates
) -> StepParts:
    """One optimizer step on one GPU with these constants."""
    kernels = tabulate(uses)
    busy, computes = kernel_seconds(kernels, gpu, rates)
    update = kernels.phase == Phase.OPTIMIZER
    times = kernels.count * np.where(update, 1, training.gradient_accumulation_steps)
    spent, starts = times * busy, float(times.sum()) * rates.kernel_s
    card, calls = _by_phase(kernels, busy + rates.kernel_s, points=1)
    micro, last = _queued(card, calls, rates)
    step = float(training.gradient_accumulation_steps * micro[0] + last[0])
    waiting = max(0.0, step - float(spent.sum()) - starts)
    by_class = np.bincount(kernels.kind, weights=spent, minlength=len(Class)).tolist()
    compute = float(spent[computes].sum())
    return StepParts(
        by_class={
            **{name: by_class[kind] for kind, name in _NAMES.items()},
            LAUNCHES: starts + waiting,
        },
        by_bound={
            "compute": compute,
            "memory bandwidth": float(spent.sum()) - compute,
            "kernel launches": starts + waiting,
        },
        card_s=card,
    )


def step_seconds_at(
    simulated: Simulated, kernels: Kernels, micro_batches: Integers, run: RunSpec
) -> Floats:
    """Seconds of one optimizer step of so many micro-batches, at many points of one recording.

    ``kernels`` are the recording's at those points (``classified``); ``run`` says where they run.
    """
    rates = device_rates(run.gpu)
    busy, _ = kernel_seconds(kernels, run.gpu, rates)
    card, calls = _by_phase(kernels, busy + rates.kernel_s, points=len(micro_batches))
    micro, update = _queued(card, calls, rates)
    seconds = micro_batches * micro + update
    if run.gpus > 1:
        seconds = seconds + exposed_seconds(run, simulated, card, micro_batches)
    return np.asarray(seconds)


def predict_time(simulated: Simulated, uses: Sequence[KernelUse], run: RunSpec) -> StepTime:
    """Seconds per optimizer step and the throughput of all GPUs."""
    training, rates = run.training, device_rates(run.gpu)
    parts = step_parts(uses, training, run.gpu, rates)
    exposed = 0.0
    if run.gpus > 1:
        count = np.array([training.gradient_accumulation_steps])
        exposed = float(exposed_seconds(run, simulated, parts.card_s, count)[0])
    step = parts.step_s + exposed
    samples = training.micro_batch_size * training.gradient_accumulation_steps * run.gpus
    return StepTime(
        step_s=step,
        low_s=rates.low * step,
        high_s=rates.high * step,
        tokens_per_s=samples * _tokens_per_sample(simulated, training) / step,
        samples_per_s=samples / step,
        bound=COMMUNICATION if exposed > max(parts.by_bound.values()) else parts.bound,
    )


def _by_phase(kernels: Kernels, seconds: Floats, points: int) -> tuple[Floats, Floats]:
    """The card's seconds, and kernels, of a micro-batch and the update: phase × point."""
    place = kernels.phase * points + np.tile(np.arange(points), len(kernels.phase) // points)

    def summed(weights: Floats) -> Floats:
        sums = np.bincount(place, weights, len(Phase) * points).astype(np.float64)
        return sums.reshape(len(Phase), points)

    return summed(kernels.count * seconds), summed(kernels.count)


def _queued(card: Floats, calls: Floats, rates: DeviceRates) -> tuple[Floats, Floats]:
    """Seconds of a micro-batch and of the update: the card's queue against the host."""
    forward, backward = [Phase.FORWARD, Phase.LOSS], [Phase.BACKWARD, Phase.RECOMPUTE]
    host = calls * rates.dispatch_s
    host[Phase.BACKWARD] *= BACKWARD_DISPATCH
    there = np.maximum(card[forward].sum(0), host[forward].sum(0))
    micro = np.maximum(there + card[backward].sum(0), host[forward + backward].sum(0))
    return micro, np.maximum(card[Phase.OPTIMIZER], host[Phase.OPTIMIZER])


def _tokens_per_sample(run: Simulated, training: TrainingSpec) -> int:
    facts = run.recording.facts
    source = training.seq_len if facts["uses_source"] else 0
    return source + (training.target_len if facts["uses_target"] else 0)
