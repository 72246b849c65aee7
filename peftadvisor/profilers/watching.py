"""Watch a training loop of the user's own: hooks that take times and memory, gone when it ends.

Forward is from the model's call to its return, backward from there to the optimizer (or to the
next forward pass, when gradients accumulate), optimizer is its step. On a GPU nothing is waited
for inside a step: times are those at which work was handed over, but for the step's end. Passes
in evaluation mode, and what happens between steps (loading data, logging), are not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import torch

from peftadvisor.errors import UsageError
from peftadvisor.profilers.instruments import Seconds
from peftadvisor.profilers.meters import Meter

WARMUP = 2


@dataclass(frozen=True, slots=True)
class Fed:
    """What the micro-batches of a step held: samples, tokens with padding, the longest row.

    Tokens are counted in ``input_ids``, or in what else the model is called with first if it is
    a matrix of whole numbers; other models have none.
    """

    samples: int = 0
    tokens: int = 0
    longest: int = 0

    def __add__(self, other: Fed) -> Fed:
        return Fed(
            self.samples + other.samples,
            self.tokens + other.tokens,
            max(self.longest, other.longest),
        )


class Watch:
    """A context manager around a training loop.

    ``model`` is what the loop calls, ``optimizer`` what it steps. Steps of ``warmup`` are not
    counted. After the loop ``seconds()`` has its times, ``fed`` what the counted steps were fed,
    and ``peak_bytes``, where there is a ``meter``, the most bytes it read in each phase of all
    steps, and before them (``load``). ``exit`` takes the hooks out where no ``with`` can stand.

    Raises:
        UsageError: it is entered twice.
    """

    def __init__(
        self, model: Any, optimizer: Any, *, warmup: int = WARMUP, meter: Meter | None = None
    ) -> None:
        self.model, self.optimizer, self.warmup = model, optimizer, warmup
        self.peak_bytes: dict[str, int] = {}
        self.meter = meter
        self._handles: list[Any] = []
        self._phase, self._since = "", 0.0
        self._steps: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._started: float | None = None
        self._totals: list[float] = []
        self._fed: list[Fed] = []
        self._feeding = Fed()

    def __enter__(self) -> Watch:
        """Put the hooks in."""
        if self._handles:
            raise UsageError("this watch is running already; make another for another loop")
        if self.meter:
            self.peak_bytes["load"] = self.meter.peak_bytes()
        self._handles = [
            self.model.register_forward_pre_hook(self._called, with_kwargs=True),
            self.model.register_forward_hook(lambda *_: self._returned()),
            self.optimizer.register_step_pre_hook(lambda *_: self._enter("optimizer")),
            self.optimizer.register_step_post_hook(lambda *_: self._end_step()),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks out, whatever happened."""
        self.exit()

    def exit(self) -> None:
        """Take the hooks out; again is no harm."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def steps(self) -> int:
        """Optimizer steps seen so far, warm-up included."""
        return len(self._totals)

    @property
    def fed(self) -> Fed:
        """All samples and tokens of the steps after the warm-up, and the longest row of any."""
        counted = sum(self._fed[self.warmup :], Fed())
        return Fed(counted.samples, counted.tokens, sum(self._fed, Fed()).longest)

    def seconds(self) -> Seconds:
        """Times of the steps after the warm-up.

        Raises:
            UsageError: there were none.
        """
        totals, steps = self._totals[self.warmup :], self._steps[self.warmup :]
        if not totals:
            raise UsageError(
                f"only {self.steps} steps were watched, {self.warmup} of them for warming up"
            )
        names = dict.fromkeys(name for step in steps for name in step)
        medians = {n: float(np.median([step.get(n, 0.0) for step in steps])) for n in names}
        return Seconds(tuple(totals), medians)

    def _called(self, _: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.model.training:
            self._feeding += _fed(named.get("input_ids", arguments[0] if arguments else None))
            self._enter("forward")

    def _returned(self) -> None:
        if self.model.training:
            self._enter("backward")

    def _enter(self, phase: str) -> None:
        now = time.perf_counter()
        if self._started is None:
            self._started = now
        else:
            self._now[self._phase] = self._now.get(self._phase, 0.0) + now - self._since
        if self.meter:
            if self._phase:
                most = max(self.peak_bytes.get(self._phase, 0), self.meter.peak_bytes())
                self.peak_bytes[self._phase] = most
            self.meter.start()
        self._phase, self._since = phase, now

    def _end_step(self) -> None:
        if next(self.model.parameters()).is_cuda:
            torch.cuda.synchronize()
        self._enter("")
        if self._started is not None:
            self._totals.append(self._since - self._started)
        self._steps.append(self._now)
        self._fed.append(self._feeding)
        self._now, self._started, self._feeding = {}, None, Fed()


def _fed(batch: Any) -> Fed:
    shape = tuple(getattr(batch, "shape", ()))
    if not shape:
        return Fed()
    if len(shape) != 2 or batch.is_floating_point():
        return Fed(samples=shape[0])
    return Fed(shape[0], shape[0] * shape[1], shape[1])
