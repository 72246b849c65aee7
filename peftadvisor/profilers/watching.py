"""Watch a training loop of the user's own: hooks that take times, gone when it ends.

Forward is from the model's call to its return, backward from there to the optimizer (or to the
next forward pass, when gradients accumulate), optimizer is its step. On a GPU nothing is waited
for inside a step: times are those at which work was handed over, but for the step's end.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import numpy as np
import torch

from peftadvisor.errors import UsageError
from peftadvisor.profilers.instruments import Seconds

WARMUP = 2


class Watch:
    """A context manager around a training loop.

    ``model`` is what the loop calls, ``optimizer`` what it steps. Steps of ``warmup`` are not
    counted. After the loop ``seconds()`` has its times.

    Raises:
        UsageError: it is entered twice.
    """

    def __init__(self, model: Any, optimizer: Any, *, warmup: int = WARMUP) -> None:
        self.model, self.optimizer, self.warmup = model, optimizer, warmup
        self._handles: list[Any] = []
        self._phase, self._since = "", 0.0
        self._steps: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._started: float | None = None
        self._totals: list[float] = []

    def __enter__(self) -> Watch:
        """Put the hooks in."""
        if self._handles:
            raise UsageError("this watch is running already; make another for another loop")
        self._handles = [
            self.model.register_forward_pre_hook(lambda *_: self._enter("forward")),
            self.model.register_forward_hook(lambda *_: self._enter("backward")),
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
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def steps(self) -> int:
        """Optimizer steps seen so far, warm-up included."""
        return len(self._totals)

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

    def _enter(self, phase: str) -> None:
        now = time.perf_counter()
        if self._started is None:
            self._started = now
        else:
            self._now[self._phase] = self._now.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def _end_step(self) -> None:
        if next(self.model.parameters()).is_cuda:
            torch.cuda.synchronize()
        self._enter("")
        if self._started is not None:
            self._totals.append(self._since - self._started)
        self._steps.append(self._now)
        self._now, self._started = {}, None
