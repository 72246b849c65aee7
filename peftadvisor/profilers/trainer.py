"""A callback for transformers' Trainer, and so TRL's: the user's own training as a profile.

    callback = ProfileCallback()
    with callback:
        Trainer(..., callbacks=[callback]).train()
    print(callback.profile().memory.allocated_peak_bytes)

FLOPs are not counted: torch's counter is a mode around the code that is counted, and one that is
opened in one event and closed in another would stay open when training fails between them.
"""

from __future__ import annotations

import platform
import weakref
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import torch
from torch.optim import Optimizer as TorchOptimizer
from transformers import TrainerCallback

from peftadvisor.errors import UsageError
from peftadvisor.profilers.loaded import method_of, model_of, training_of
from peftadvisor.profilers.meters import CudaMeter, meter_of
from peftadvisor.profilers.provenance import provenance
from peftadvisor.profilers.recorded import recorded, run_of
from peftadvisor.profilers.store import default_store
from peftadvisor.profilers.watching import WARMUP, Watch
from peftadvisor.profilers.workload import static_bytes
from peftadvisor.profiles import Parameters, PhaseMemory, PhaseTime, Profile
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec


class ProfileCallback(TrainerCallback):
    """Watches a Trainer's training; each process of a distributed one watches itself.

    The hooks are in from the start of training to its end. A training that raises has no such
    end: the hooks are then taken out by ``close``, on leaving a ``with``, when the callback is
    collected, or when it watches the next training. ``warmup`` steps are not timed.
    """

    def __init__(self, *, warmup: int = WARMUP) -> None:
        self.warmup = warmup
        self.watch: Watch | None = None
        self._arguments: Any = None
        self._hooks = ExitStack()
        weakref.finalize(self, self._hooks.close).atexit = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Put the hooks on the model and the optimizer.

        Raises:
            UsageError: the optimizer has no hooks, or one process drives several GPUs.
        """
        self.close()
        model, optimizer = parts.get("model"), inner_optimizer(parts.get("optimizer"))
        if model is None or not isinstance(optimizer, TorchOptimizer):
            raise UsageError("ProfileCallback watches a model and a torch optimizer; take it out")
        if getattr(args, "n_gpu", 1) > 1:
            raise UsageError("ProfileCallback watches one GPU per process; start with torchrun")
        self._arguments = args
        meter = meter_of(next(model.parameters()).device)
        self.watch = Watch(model, optimizer, warmup=self.warmup, meter=meter)
        self._hooks.enter_context(self.watch)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Take the hooks out."""
        self.close()

    def close(self) -> None:
        """Take the hooks out, if there are any; what was seen stays."""
        self._hooks.close()

    def __enter__(self) -> ProfileCallback:
        """Nothing yet: the hooks come when training begins."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks out, whatever happened."""
        self.close()

    def profile(
        self, *, method: MethodSpec | None = None, training: TrainingSpec | None = None
    ) -> Profile:
        """What was watched; method and settings are read off the model and the arguments.

        Raises:
            UsageError: too few steps were watched, or a setting has no name here: pass it.
        """
        watch = self._watched()
        return watched_profile(
            watch,
            model_of(watch.model),
            method or method_of(watch.model),
            training or training_of(self._arguments, watch.model, watch.fed),
        )

    def keep(self, profile: Profile, address: str | None = None) -> None:
        """Add a profile to the store at an address, the user's own for None.

        Raises:
            UsageError: the store cannot be used.
        """
        model = model_of(self._watched().model)
        run = run_of("measure", model, profile.method, profile.training, profile.device)
        run["data"] = "the user's own"
        recorded(address or default_store(), run, lambda _: profile, lambda _: None)

    def _watched(self) -> Watch:
        if self.watch is None:
            raise UsageError("no training was watched; add the callback to a Trainer and train")
        return self.watch


def watched_profile(
    watch: Watch, model: ModelSpec, method: MethodSpec, training: TrainingSpec
) -> Profile:
    """What a watch with a meter saw, as a profile; without FLOPs.

    Memory on a GPU is what the caching allocator handed out. On the CPU, which keeps no count, it
    is the parameters and buffers, and what the resident set of the process grew by since the
    watch began: near for models of gigabytes, of little use for small ones.

    Raises:
        UsageError: the watch has no meter, or saw no step after its warm-up.
    """
    if watch.meter is None:
        raise UsageError("this watch read no memory; make it with a meter")
    device = next(watch.model.parameters()).device
    on_gpu = device.type == "cuda"
    how = "" if on_gpu else "; memory by growth of the resident set"
    today = datetime.now(UTC).date().isoformat()
    return Profile(
        engine="measure",
        device=torch.cuda.get_device_name(device) if on_gpu else device.type,
        model=model.id,
        method=method,
        training=training,
        parameters=_parameters(watch.model),
        memory=_memory(watch),
        phase_flops={},
        time=_time(watch),
        provenance=provenance("measure", f"watched on {platform.machine()}, {today}{how}"),
    )


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer that steps, out of what accelerate wraps it in."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), TorchOptimizer):
        optimizer = inner
    return optimizer


def _parameters(model: Any) -> Parameters:
    trained = [p for p in model.parameters() if p.requires_grad]
    return Parameters(
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trained),
        stored_bytes=sum(p.numel() * p.element_size() for p in trained),
    )


def _memory(watch: Watch) -> PhaseMemory:
    static, peaks = static_bytes(watch.model), dict(watch.peak_bytes)
    reserved = watch.meter.reserved_peak_bytes if isinstance(watch.meter, CudaMeter) else None
    if reserved is None:
        before = peaks["load"]
        peaks = {phase: static + max(0, most - before) for phase, most in peaks.items()}
    phase = max(peaks, key=lambda name: peaks[name])
    return PhaseMemory(
        static_bytes=static,
        allocated_peak_bytes=peaks[phase],
        peak_phase=phase,
        phase_peak_bytes=peaks,
        host_peak_bytes=max(watch.peak_bytes.values()) if reserved is None else None,
        reserved_peak_bytes=reserved,
    )


def _time(watch: Watch) -> PhaseTime:
    took, fed = watch.seconds(), watch.fed
    low, high = took.quartiles_s
    return PhaseTime(
        step_s=took.median_s,
        low_s=low,
        high_s=high,
        phase_s=took.phases,
        tokens_per_s=fed.tokens / sum(took.steps),
        samples_per_s=fed.samples / sum(took.steps),
        steps=len(took.steps),
    )
