"""What happens, in memory, time and money, if a model is fine-tuned this way on this GPU.

Importing this package imports nothing else; every name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from peftadvisor.advisor.question import Recommendation
    from peftadvisor.integrations.checked import Verdict
    from peftadvisor.integrations.preflight import PreflightCallback, preflight
    from peftadvisor.profilers.trainer import ProfileCallback
    from peftadvisor.profilers.watching import Watch
    from peftadvisor.profiles import Engine, Estimate, Profile
    from peftadvisor.simulator.record import record
    from peftadvisor.specs import (
        Budget,
        GpuSpec,
        MethodSpec,
        ModelSpec,
        PriceSpec,
        RunSpec,
        Sharding,
        TrainingSpec,
    )

__all__ = [
    "Budget",
    "Estimate",
    "GpuSpec",
    "MethodSpec",
    "ModelSpec",
    "PreflightCallback",
    "PriceSpec",
    "Profile",
    "ProfileCallback",
    "Recommendation",
    "RunSpec",
    "TrainingSpec",
    "Verdict",
    "Watch",
    "check",
    "estimate",
    "preflight",
    "profile",
    "recommend",
    "record",
]

_SPECS = "peftadvisor.specs"
_HOMES = {
    "Budget": _SPECS,
    "Estimate": "peftadvisor.profiles",
    "GpuSpec": _SPECS,
    "MethodSpec": _SPECS,
    "ModelSpec": _SPECS,
    "PreflightCallback": "peftadvisor.integrations.preflight",
    "PriceSpec": _SPECS,
    "Profile": "peftadvisor.profiles",
    "ProfileCallback": "peftadvisor.profilers.trainer",
    "Recommendation": "peftadvisor.advisor.question",
    "RunSpec": _SPECS,
    "TrainingSpec": _SPECS,
    "Verdict": "peftadvisor.integrations.checked",
    "Watch": "peftadvisor.profilers.watching",
    "preflight": "peftadvisor.integrations.preflight",
    "record": "peftadvisor.simulator.record",
}


def estimate(run: RunSpec, budget: Budget | None = None) -> Estimate:
    """Predict one run: memory, FLOPs, time, cost and whether it fits.

    Raises:
        UsageError: the run cannot exist, or cannot be predicted with what is installed.
    """
    from peftadvisor import advisor, specs

    return advisor.estimate(run, budget=budget or specs.Budget())


def recommend(
    model: str | ModelSpec,
    gpu: str | GpuSpec,
    budget: Budget | None = None,
    *,
    training: TrainingSpec | None = None,
    gpus: int = 1,
    effective_batch_size: int = 16,
    methods: tuple[str, ...] | None = None,
    top: int = 6,
    sharding: Sharding = "ddp",
    expandable_segments: bool = False,
) -> Recommendation:
    """Say which methods fit, best first, with their settings, and what does not fit.

    ``model`` and ``gpu`` are specs, or the names of bundled ones. The best ``top`` methods are
    worked out in full, or all of ``methods``; ``("all",)`` tries every method there is.

    Raises:
        UsageError: an unknown name, or a combination that cannot exist.
    """
    from peftadvisor import advisor, specs
    from peftadvisor.advisor.places import named
    from peftadvisor.advisor.question import Question
    from peftadvisor.data.gpus import find_gpu
    from peftadvisor.data.models import find_model

    place = named(find_gpu(gpu) if isinstance(gpu, str) else gpu, gpus, sharding)
    question = Question(
        model=find_model(model) if isinstance(model, str) else model,
        places=place,
        training=training or specs.TrainingSpec(),
        budget=budget or specs.Budget(),
        effective_batch_size=effective_batch_size,
        methods=methods,
        top=top,
        expandable_segments=expandable_segments,
    )
    return advisor.recommend(question)


def profile(
    run: RunSpec, device: str = "cpu", *, engine: Engine = "measure", steps: int = 5
) -> Profile:
    """Measure one run on a device of this machine, in a process of its own, or simulate it there.

    ``device`` is ``cpu`` or ``cuda:N``; to simulate, also the name of a GPU of the catalog.
    ``run.gpu`` does not matter here.

    Raises:
        UsageError: the run cannot exist, or not on this device.
        PeftAdvisorError: the process that measured was killed, or failed.
    """
    from peftadvisor.profilers.child import in_child
    from peftadvisor.profilers.profiling import measured_profile
    from peftadvisor.profilers.simulated import gpu_of, simulated_profile

    what = (run.model, run.method, run.training)
    if engine == "simulate":
        return simulated_profile(*what, gpu_of(device))
    measured: Profile = in_child(measured_profile, *what, device, steps=steps, say=lambda _: None)
    return measured


def check(
    config: str | Path,
    gpu: str | GpuSpec,
    *,
    gpus: int | None = None,
    budget: Budget | None = None,
    examples: int | None = None,
) -> Verdict:
    """Check another tool's training config for a GPU before it is launched.

    ``config`` is a file of axolotl, LLaMA-Factory, TRL, torchtune, transformers with PEFT, or one
    of our own; ``gpu`` a spec or a name, ``auto`` for the card in here; ``examples`` is the size
    of an epoch. Limits of ``budget`` on hours and dollars are gates.

    Raises:
        UsageError: the file is no such config, or its run cannot be predicted.
    """
    from peftadvisor import specs
    from peftadvisor.integrations import checking, gates, lookup

    asked = budget or specs.Budget()
    terms = checking.Terms(
        gpu=lookup.gpu_spec(gpu, None) if isinstance(gpu, str) else gpu,
        gpus=gpus,
        budget=asked,
        gates=gates.Gates(max_hours=asked.max_hours, max_usd=asked.max_usd),
        job=specs.Job(examples=examples),
    )
    return checking.check(config, terms)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'peftadvisor' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
