"""Per method, the settings that may fit, found with the quick lower bound of device memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from peftadvisor.advisor.estimating import variant_of, verdict, with_implied_quantization
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.advisor.question import Question
from peftadvisor.cost_model.loading import loading
from peftadvisor.cost_model.memory import least_device_bytes, oom_probability
from peftadvisor.cost_model.sharding import shard
from peftadvisor.cost_model.time import step_seconds
from peftadvisor.cost_model.uncertainty import kind_of
from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.simulator.obtain import Progress, Simulated, obtain
from peftadvisor.specs import Checkpointing, MethodSpec, RunSpec, TrainingSpec

CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "non-reentrant")


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """One setting of one method: a quick lower bound of device memory, and its step time.

    ``simulated`` is None once the search has weighed it: it is on file, and read again.
    """

    run: RunSpec
    device_bytes: int
    simulated: Simulated | None
    step_s: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """What was found for one method: the least candidate, or why there is none.

    ``fitting`` are those that fit by the quick bound, the fastest first.
    """

    method: str
    least: Candidate | None = None
    fitting: tuple[Candidate, ...] = ()
    refusal: str = ""


def search(
    question: Question, methods: Sequence[Method], progress: Progress | None
) -> list[Search]:
    """Try checkpointing and micro-batches of every method; recordings that are missing are made."""
    if all(_on_file(question, method) for method in methods):
        return map_forked(lambda method: _search(question, method, None), methods)
    return [_search(question, method, progress) for method in methods]


def _on_file(question: Question, method: Method) -> bool:
    """Whether the method was recorded before, so that searching takes milliseconds."""
    return all(
        variant_of(_run(question, method, question.training, checkpointing)).on_file()
        for checkpointing in CHECKPOINTING
    )


def _search(question: Question, method: Method, progress: Progress | None) -> Search:
    if progress:
        progress(f"weighing {method.name}")
    try:
        tried = tuple(_tried(question, method, progress))
    except UnsupportedError as error:
        return Search(method.name, refusal=str(error))
    least = min(tried, key=lambda candidate: candidate.device_bytes)
    inside = [_timed(candidate) for candidate in tried if _fits(candidate, question)]
    least, *inside = (dataclasses.replace(c, simulated=None) for c in (least, *inside))
    fastest_first = sorted(inside, key=lambda candidate: candidate.step_s)
    return Search(method.name, least=least, fitting=tuple(fastest_first))


def _timed(candidate: Candidate) -> Candidate:
    assert candidate.simulated is not None
    uses, run = candidate.simulated.kernel_uses(), candidate.run
    step_s = sum(step_seconds(uses, run.training, run.gpu).values())
    return dataclasses.replace(candidate, step_s=step_s)


def memory_limit(question: Question) -> int:
    """Bytes that a run may take on one GPU."""
    usable = question.gpu.usable_bytes
    return min(usable, question.budget.max_memory_bytes or usable)


def _tried(question: Question, method: Method, progress: Progress | None) -> Iterator[Candidate]:
    """Per checkpointing mode the largest micro-batch that may fit, else micro-batch 1."""
    for checkpointing in CHECKPOINTING:
        try:
            candidate = _largest(question, method, checkpointing, progress)
        except UnsupportedError:
            if checkpointing == "none":
                raise
            return
        yield candidate
        if candidate.run.training.gradient_accumulation_steps == 1 and _fits(candidate, question):
            return  # the whole batch at once: recomputing can only be slower


def _largest(
    question: Question, method: Method, checkpointing: Checkpointing, progress: Progress | None
) -> Candidate:
    per_gpu = max(1, question.effective_batch_size // question.gpus)
    candidate = None
    for micro in sorted(_divisors(per_gpu), reverse=True):
        training = dataclasses.replace(
            question.training,
            micro_batch_size=micro,
            gradient_accumulation_steps=per_gpu // micro,
        )
        run = _run(question, method, training, checkpointing)
        simulated = obtain(variant_of(run), exact=False, progress=progress)
        there = shard(simulated, run)
        device_bytes = least_device_bytes(there, run, loading(there, run))
        candidate = Candidate(run, device_bytes, simulated)
        if _fits(candidate, question):
            return candidate
    assert candidate is not None
    return candidate


def smaller(run: RunSpec) -> RunSpec | None:
    """The run with the next smaller micro-batch and the same effective batch; None from 1 on."""
    t = run.training
    total = t.micro_batch_size * t.gradient_accumulation_steps
    below = [micro for micro in _divisors(total) if micro < t.micro_batch_size]
    if not below:
        return None
    micro = max(below)
    training = dataclasses.replace(
        t, micro_batch_size=micro, gradient_accumulation_steps=total // micro
    )
    return dataclasses.replace(run, training=training)


def _run(
    question: Question, method: Method, training: TrainingSpec, checkpointing: Checkpointing
) -> RunSpec:
    return with_implied_quantization(
        RunSpec(
            model=question.model,
            method=MethodSpec(name=method.name),
            training=dataclasses.replace(training, gradient_checkpointing=checkpointing),
            gpu=question.gpu,
            gpus=question.gpus,
            sharding=question.sharding,
            expandable_segments=question.expandable_segments,
        )
    )


def _fits(candidate: Candidate, question: Question) -> bool:
    """Whether the quick lower bound leaves room for it."""
    kind = kind_of(candidate.run.training.loss, candidate.run.gpus)
    risk = oom_probability(candidate.device_bytes, question.gpu, kind)
    inside = candidate.device_bytes <= memory_limit(question)
    return inside and verdict(risk, question.budget.max_oom_risk) == "fits"


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]
