"""A Trainer's events for a check before training: asked once at its start, measured once after."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import TrainerCallback

from peftadvisor.profilers.allocations import AllocationMeter
from peftadvisor.profilers.counted import held_bytes
from peftadvisor.profilers.live import Parts, unwrapped
from peftadvisor.profilers.meters import CudaMeter, HostMeter
from peftadvisor.profilers.seen import Lengths, largest, undisturbed
from peftadvisor.profilers.trainer import inner_optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Most bytes that the first ``steps`` steps held, and how that was found out.

    ``reserved_peak_bytes`` is what the caching allocator took for them; None on the CPU. What is
    not ``exact`` is no count of tensors: a process that reuses its pages does not grow.
    """

    allocated_peak_bytes: int
    reserved_peak_bytes: int | None
    steps: int
    how: str
    exact: bool = True


class TrainingCheck(TrainerCallback):
    """What stands between a Trainer and a check; subclasses say what is checked.

    Between the start and the reading a step costs one addition. A training that raises has no
    end: what is still open then is closed when the callback trains again, or is collected.
    """

    def __init__(self, *, steps: int, lengths: Lengths, record_allocations: bool) -> None:
        self._steps, self._lengths, self._every = steps, lengths, record_allocations
        self._left: int | None = None
        self._reading: Reading | None = None
        self._open = ExitStack()
        weakref.finalize(self, self._open.close).atexit = False

    def checked(self, parts: Parts, speaks: bool) -> None:
        """Called once with what the Trainer holds, before the first step; may raise.

        ``speaks`` is whether this process is the one that speaks for all.
        """
        raise NotImplementedError

    def measured(self, measured: Measured) -> None:
        """Called once with the peak of the first steps."""
        raise NotImplementedError

    def failed(self, error: Exception, *, started: bool) -> None:
        """Called with what went wrong in the check, or, once training runs, in the reading."""
        raise NotImplementedError

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Check, then begin to measure."""
        self._open.close()
        self._left = self._reading = None
        try:
            found = _parts(args, parts, self._lengths)
            with undisturbed():
                self.checked(found, getattr(state, "is_world_process_zero", True))
            self._reading = reading_of(unwrapped(found.model), self._every)
            self._open.callback(self._reading.close)
            self._left = self._steps
        except Exception as error:  # whatever the check meets, the subclass decides
            self.failed(error, started=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Count, and read the peak when there were enough steps."""
        if self._left:
            self._left -= 1
            if not self._left:
                self._read()

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Read the peak, if there were fewer steps than that."""
        if self._left and self._left < self._steps:
            self._read()
        self._open.close()

    def _read(self) -> None:
        steps, self._left = self._steps - (self._left or 0), None
        try:
            assert self._reading is not None
            self.measured(self._reading.read(steps))
        except Exception as error:  # training goes on
            self.failed(error, started=True)
        self._open.close()


def _parts(args: Any, parts: Mapping[str, Any], lengths: Lengths) -> Parts:
    model = parts["model"]
    return Parts(
        model=model,
        args=args,
        optimizer=inner_optimizer(parts.get("optimizer")),
        seen=partial(largest, args, parts.get("train_dataloader"), lengths),
        device=next(model.parameters()).device.type,
    )


class Reading:
    """One meter from the start of training on, and how it counts.

    ``static_bytes`` is what a meter that only sees growth does not see.
    """

    def __init__(self, meter: Any, how: str, static_bytes: int = 0) -> None:
        self._meter, self._how, self._static = meter, how, static_bytes
        meter.start()
        self._before = meter.peak_bytes() if static_bytes else 0

    def read(self, steps: int) -> Measured:
        """The peak since then."""
        peak = self._meter.peak_bytes()
        on_card = isinstance(self._meter, CudaMeter)
        return Measured(
            allocated_peak_bytes=self._static + max(0, peak - self._before),
            reserved_peak_bytes=self._meter.reserved_peak_bytes if on_card else None,
            steps=steps,
            how=self._how,
            exact=not isinstance(self._meter, HostMeter),
        )

    def close(self) -> None:
        """Stop what records, if anything does."""
        if isinstance(self._meter, AllocationMeter):
            self._meter.close()


def reading_of(model: Any, every: bool) -> Reading:
    """The reading of the device that a model is on; ``every`` records every allocation there."""
    device, static = next(model.parameters()).device, held_bytes(model)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return Reading(CudaMeter(index), "by torch's allocator")
    if every:
        return Reading(AllocationMeter(static), "by the record of every allocation")
    return Reading(HostMeter(), "by growth of the resident set", static)
