"""Settings weighed at many micro-batches and places at once: a quick bound of memory, and time.

Memory here is the allocated peak and what lies outside the allocator: a lower bound, since
fragmentation is left to the replay, which only the best candidates are put to.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from peftadvisor.advisor.estimating import variant_of
from peftadvisor.advisor.places import Place
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.space import Setting, computes_bf16, on_gpu
from peftadvisor.cost_model.batching import expected_longest
from peftadvisor.cost_model.kernel_classes import Floats, Kernels, classified
from peftadvisor.cost_model.loading import loading
from peftadvisor.cost_model.memory import least_device_bytes, most_device_bytes
from peftadvisor.cost_model.sharding import shard
from peftadvisor.cost_model.time import step_seconds_at
from peftadvisor.cost_model.uncertainty import kind_of
from peftadvisor.simulator.library import Kernels as AttentionKernels
from peftadvisor.simulator.obtain import FP16_AS_BF16, Progress, Simulated, obtain
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.regimes import ALIGNMENT
from peftadvisor.specs import Budget, GpuSpec, Loss, RunSpec

SHARED_KERNELS: AttentionKernels = "flash"
"""Those by which many places are weighed together, whichever each prefers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting at one place with one micro-batch; bytes are a lower bound, on each GPU."""

    setting: Setting
    place: Place
    micro_batch_size: int
    micro_batches: int
    device_bytes: int
    stored_bytes: int
    step_s: float

    @property
    def samples_per_s(self) -> float:
        """Over all GPUs."""
        return self.micro_batch_size * self.micro_batches * self.place.count / self.step_s

    @property
    def usd_per_sample(self) -> float | None:
        """What one costs there; None without a price."""
        hourly = self.place.usd_per_hour
        return None if hourly is None else hourly / 3600 / self.samples_per_s

    def run(self, question: Question) -> RunSpec:
        """The run that it stands for."""
        return _run(question, self.setting, self.place, (self.micro_batch_size, self.micro_batches))


def weigh(question: Question, setting: Setting, progress: Progress | None) -> list[Candidate]:
    """Every micro-batch that divides the effective batch, at every place.

    Where there is a choice of places, those on which the model would have to be recorded in fp16
    are left out: T5 and the like, on cards without bf16.

    Raises:
        UnsupportedError: the model cannot take the method, or nothing is recorded of it.
    """
    places = question.places
    if len(places) > 1 and question.model.model_type not in FP16_AS_BF16:
        places = tuple(p for p in places if on_gpu(setting.training, p.gpu) == setting.training)
    alike = itertools.groupby(sorted(places, key=_recorded_as), key=_recorded_as)
    return [
        candidate
        for _, places in alike
        for candidate in _at_places(question, setting, list(places), progress)
    ]


def most_bytes(question: Question, candidate: Candidate) -> int:
    """The most that a candidate's predicted peak may be."""
    place = candidate.place
    return most_bytes_on(question.budget, place.gpu, candidate.setting.training.loss, place.count)


def most_bytes_on(budget: Budget, gpu: GpuSpec, loss: Loss, gpus: int) -> int:
    """The most that a run's predicted peak may be on each of so many GPUs."""
    most = most_device_bytes(gpu, kind_of(loss, gpus), budget.max_oom_risk)
    return min(most, budget.max_memory_bytes or most, gpu.usable_bytes)


def divisors(number: int) -> list[int]:
    """Micro-batches that a batch can be made of."""
    return [n for n in range(1, number + 1) if number % n == 0]


def _recorded_as(place: Place) -> tuple[int, str, str]:
    """What places share a recording: which attention kernel they prefer is left to the replay."""
    return place.count, place.sharding, "bf16" if computes_bf16(place.gpu) else "fp16"


def _run(question: Question, setting: Setting, place: Place, batches: tuple[int, int]) -> RunSpec:
    training = dataclasses.replace(
        setting.training, micro_batch_size=batches[0], gradient_accumulation_steps=batches[1]
    )
    return RunSpec(
        model=question.model,
        method=setting.spec,
        training=on_gpu(training, place.gpu),
        gpu=place.gpu,
        gpus=place.count,
        sharding=place.sharding,
        expandable_segments=question.expandable_segments,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Stretch:
    """Micro-batches that one recording describes: their peaks and kernels."""

    simulated: Simulated
    micro: Integers
    per_step: Integers
    peaks: Integers
    loading_bytes: int
    kernels: Kernels


def _at_places(
    question: Question, setting: Setting, places: Sequence[Place], progress: Progress | None
) -> Iterator[Candidate]:
    every = divisors(max(1, question.effective_batch_size // places[0].count))
    # one sample is not recorded as several are
    stretches = [
        _stretch(question, setting, places[0], batches, progress)
        for batches in (every[:1], every[1:])
        if batches
    ]
    for place in places:
        for part in stretches:
            run = _run(question, setting, place, (int(part.micro[0]), int(part.per_step[0])))
            step_s = step_seconds_at(part.simulated, part.kernels, part.per_step, run)
            held = least_device_bytes(part.peaks, part.loading_bytes, place.gpu, place.count)
            yield from _candidates(setting, place, part, held, step_s)


def _stretch(
    question: Question,
    setting: Setting,
    place: Place,
    batches: list[int],
    progress: Progress | None,
) -> _Stretch:
    per_gpu = max(1, question.effective_batch_size // place.count)
    micro = np.array(batches, dtype=np.int64)
    run = _run(question, setting, place, (batches[0], per_gpu // batches[0]))
    variant = variant_of(run)
    if len(question.places) > 1:
        variant = dataclasses.replace(variant, kernels=SHARED_KERNELS)
    simulated = obtain(variant, exact=False, progress=progress)
    _, s, t = simulated.point
    points = [(b, s, t) for b in batches]
    table = simulated.recording.kernel_table(_timed(question, points), simulated.units)
    there = shard(simulated, run)
    load = loading(there, run)
    return _Stretch(
        simulated,
        micro,
        per_gpu // micro,
        _peaks(there, points, per_gpu),
        load.allocated_peak_bytes if load else 0,
        classified(table),
    )


def _timed(question: Question, points: Sequence[Point]) -> list[Point]:
    """Points at which time is taken: batches of mean length, where the user's data are known."""
    return [(b, typical_length(question, b, s), t) for b, s, t in points]


def typical_length(question: Question, micro_batch_size: int, longest: int) -> int:
    """Tokens of a mean batch, whose padding is its longest sample's; aligned as recordings are."""
    if question.batching is None or not question.training.padded:
        return longest
    mean = expected_longest(question.batching.kept.rows, micro_batch_size)
    return min(longest, -(-int(mean) // ALIGNMENT) * ALIGNMENT)


def _peaks(there: Simulated, points: Sequence[Point], per_gpu: int) -> Integers:
    """Allocated peaks; the whole batch at once has no further micro-batch before its update."""
    recording, units = there.recording, there.units
    at_once = [point[0] == per_gpu for point in points]
    several = recording.allocated_peaks(points, units, accumulate=True)
    once = recording.allocated_peaks(points, units) if any(at_once) else several
    return np.where(at_once, once, several)


def _candidates(
    setting: Setting, place: Place, part: _Stretch, held: Integers, step_s: Floats
) -> Iterator[Candidate]:
    stored_bytes = part.simulated.parameters().stored_bytes
    for micro, count, device_bytes, seconds in zip(
        part.micro.tolist(), part.per_step.tolist(), held.tolist(), step_s.tolist(), strict=True
    ):
        yield Candidate(
            setting=setting,
            place=place,
            micro_batch_size=micro,
            micro_batches=count,
            device_bytes=device_bytes,
            stored_bytes=stored_bytes,
            step_s=seconds,
        )
