"""The settings that are weighed for a method: all but micro-batch and place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from peftadvisor.advisor.estimating import implied_training
from peftadvisor.advisor.hyperparameters import method_settings
from peftadvisor.advisor.question import Question
from peftadvisor.methods.base import Method
from peftadvisor.simulator.library import Variant, attention_kernels
from peftadvisor.specs import GpuSpec, MethodSpec, Optimizer, TrainingSpec

LEAST_RANK = 4
SIZES = ("rank", "alpha", "dropout", "virtual_tokens", "reduction")
"""Advised settings that are followed; where a method is placed is the method's own."""
BF16_FROM = (8, 0)
"""The compute capability from which NVIDIA's cards compute in bf16."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to run a method; ``concession`` says how much was given up for memory, 0 nothing."""

    method: Method
    spec: MethodSpec
    training: TrainingSpec
    concession: int = 0


def settings(question: Question, method: Method) -> list[Setting]:
    """Every way that is weighed: those that are recorded, else the method as it comes."""
    every = list(_preferred(question, method))
    recorded = [setting for setting in every if on_file(question, setting)]
    return recorded or [setting for setting in every if setting.concession == 0]


def computes_bf16(gpu: GpuSpec) -> bool:
    """Whether the card has units for it; true of those that are not NVIDIA's."""
    return gpu.vendor != "nvidia" or (gpu.compute_capability or BF16_FROM) >= BF16_FROM


def on_gpu(training: TrainingSpec, gpu: GpuSpec) -> TrainingSpec:
    """The same in fp16 where the card does not compute in bf16."""
    if computes_bf16(gpu) or training.dtype != "bf16":
        return training
    return dataclasses.replace(training, dtype="fp16")


def _preferred(question: Question, method: Method) -> Iterator[Setting]:
    for concession, (spec, optimizer) in enumerate(_specs(question, method)):
        for checkpointing in question.checkpointing:
            training = dataclasses.replace(
                question.training, gradient_checkpointing=checkpointing, optimizer=optimizer
            )
            yield Setting(
                method=method,
                spec=spec,
                training=implied_training(method.name, training),
                concession=concession,
            )


def _specs(question: Question, method: Method) -> Iterator[tuple[MethodSpec, Optimizer]]:
    """The advised size, then with smaller optimizer states, then smaller sizes."""
    known = method.defaults
    fixed = {name: value for name, value in question.settings if name in known}
    advised = {a.name: a.value for a in method_settings(method, question.model, question.job)}
    sizes = {name: advised[name] for name in SIZES if name in advised}
    spec = _spec(method, {**sizes, **fixed})
    first, *others = question.optimizers
    yield spec, first
    for optimizer in others:
        yield spec, optimizer
    rank = {**known, **sizes, **fixed}.get("rank")
    while isinstance(rank, int) and "rank" not in fixed and rank // 2 >= LEAST_RANK:
        rank //= 2
        yield _spec(method, {**sizes, **fixed, "rank": rank}), first
    yield _spec(method, fixed), first  # as it comes, where no other size is recorded


def _spec(method: Method, settings: Mapping[str, Any]) -> MethodSpec:
    """The method with what differs from its defaults."""
    changed = {name: v for name, v in settings.items() if v != method.defaults[name]}
    return MethodSpec(name=method.name).with_settings(**changed)


def on_file(question: Question, setting: Setting) -> bool:
    """Whether it was recorded: for a place's own kernels, or for those that serve all."""
    kernels = dict.fromkeys(["flash", *(attention_kernels(p.gpu) for p in question.places)])
    return any(
        Variant(question.model, setting.spec, setting.training, kernel).on_file()
        for kernel in kernels
    )
