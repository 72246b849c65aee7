"""A check before training, in code: will this run fit into what is free now, and was that right.

    Trainer(..., callbacks=[PreflightCallback()]).train()     # stops before the first step
    print(preflight(model, args, peft_config, gpu="rtx-4090", seq_len=2048).text)

The run is read off the live model, its arguments, optimizer and data, and simulated on shapes;
what is simulated is held against the live model, module by module. What is none of ours is
counted instead: weights, gradients and optimizer states, as a lower bound that is said to be one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from peftadvisor.data.gpus import find_gpu
from peftadvisor.errors import PeftAdvisorError, UsageError
from peftadvisor.integrations.forecast import Where, forecast
from peftadvisor.integrations.forecast_value import Forecast
from peftadvisor.profilers.checking import Measured, TrainingCheck
from peftadvisor.profilers.live import Parts, adapted
from peftadvisor.profilers.seen import Lengths, largest, undisturbed
from peftadvisor.specs import GpuSpec

Mode = Literal["stop", "warn"]
Say = Callable[[str], None]
STEPS = 3
"""After which the peak is read: the states are there from the first on, the second holds most."""


class WouldNotFitError(PeftAdvisorError):
    """Training was stopped before its first step; ``report`` says why."""

    def __init__(self, report: Forecast) -> None:
        self.report = report
        super().__init__(report.text)


class PreflightCallback(TrainingCheck):
    """Stops a Trainer, and so TRL's, before its first step if the run would not fit.

    With ``mode="warn"`` it only says so, and no error of its own stops training. After ``steps``
    steps it says once how the measured peak compares with the predicted one; ``report`` holds
    both, ``failure`` what went wrong in the check itself, if anything did.

    The memory is what is free on the model's GPU now and what this process holds of it, or
    ``limit_bytes``, all that the run may take, weights included. On the CPU there is no limit but
    that. ``gpu`` names a card of the catalog to predict for in place of the live one, all of it
    free or as much as ``limit_bytes``. ``seq_len`` and
    ``target_len`` are the longest samples; without, up to 256 samples of the data are looked at.
    ``record_allocations`` measures exactly on the CPU, and slows those steps; without, the peak
    there is that of the process, which says little of small models.

    Raises:
        UsageError: a setting out of range.
    """

    def __init__(
        self,
        *,
        mode: Mode = "stop",
        limit_bytes: int | None = None,
        gpu: str | GpuSpec | None = None,
        steps: int = STEPS,
        seq_len: int | None = None,
        target_len: int | None = None,
        record_allocations: bool = False,
        say: Say = print,
    ) -> None:
        if mode not in get_args(Mode):
            raise UsageError(f"mode is {mode!r}; it must be one of {', '.join(get_args(Mode))}")
        _require_positive(steps=steps, limit_bytes=limit_bytes)
        super().__init__(
            steps=steps,
            lengths=Lengths(seq_len=seq_len, target_len=target_len),
            record_allocations=record_allocations,
        )
        self.mode, self.failure = mode, ""
        self.report: Forecast | None = None
        self._where = _where(gpu, limit_bytes)
        self._say, self._speaks = say, True

    def checked(self, parts: Parts, speaks: bool) -> None:
        """Predict, and stop or say what is predicted.

        Raises:
            WouldNotFitError: the run does not fit, in mode ``stop``.
        """
        self.report, self.failure, self._speaks = None, "", speaks
        self.report = forecast(parts, self._where, self._tell)
        if self.report.verdict == "oom" and self.mode == "stop":
            raise WouldNotFitError(self.report)
        self._tell(self.report.text)

    def measured(self, measured: Measured) -> None:
        """Say how the measured peak compares with the predicted one."""
        if self.report is not None:
            self.report = self.report.with_measured(measured)
            self._tell(self.report.comparison)

    def failed(self, error: Exception, *, started: bool) -> None:
        """Stop where that was asked for and training has not begun; else say it and go on.

        Raises:
            PeftAdvisorError: the check failed, or the run does not fit, in mode ``stop``.
        """
        self.failure = f"{type(error).__name__}: {error}"
        if self.mode == "stop" and not started:
            if isinstance(error, PeftAdvisorError):
                raise error
            raise PeftAdvisorError(
                f"the pre-flight check failed ({self.failure}); mode='warn' trains all the same"
            ) from error
        self._tell(f"pre-flight: the check failed ({self.failure}); training goes on unchecked")

    def _tell(self, text: str) -> None:
        if self._speaks:
            self._say(text)


def preflight(
    model: Any,
    args: Any,
    peft_config: Any = None,
    *,
    gpu: str | GpuSpec | None = None,
    limit_bytes: int | None = None,
    seq_len: int | None = None,
    target_len: int | None = None,
    loader: Any = None,
) -> Forecast:
    """What training a model by these ``TrainingArguments`` will take, and whether it fits.

    ``model`` is a transformers model, wrapped by PEFT already or to be by ``peft_config``; it
    stays as it is, and may be on the meta device. ``gpu`` names a card of the catalog; without,
    it is the device that the model is on, and what is free there. ``loader`` is a DataLoader
    whose samples are looked at where no ``seq_len`` is given.

    Raises:
        UsageError: an unknown card, a value out of range, or an adapter that PEFT refuses.
    """
    _require_positive(limit_bytes=limit_bytes)
    lengths = Lengths(seq_len=seq_len, target_len=target_len)
    where = _where(gpu, limit_bytes)
    with undisturbed():
        parts = Parts(
            model=model if peft_config is None else adapted(model, peft_config),
            args=args,
            optimizer=None,
            seen=partial(largest, args, loader, lengths),
            device=next(model.parameters()).device.type,
        )
        return forecast(parts, where, lambda _: None)


def _require_positive(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and not (type(value) is int and value > 0):
            raise UsageError(f"{name} is {value!r}; it must be a positive whole number")


def _where(gpu: str | GpuSpec | None, limit_bytes: int | None) -> Where:
    return Where(gpu=find_gpu(gpu) if isinstance(gpu, str) else gpu, limit_bytes=limit_bytes)
