"""What a check before training says, and what was measured after: a value, and a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from peftadvisor.profilers.checking import Measured
from peftadvisor.profilers.live import Run
from peftadvisor.units import format_bytes

Kind = Literal["predicted", "lower bound"]
Outcome = Literal["fits", "tight", "oom", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Most bytes that the run can have, and who says so; ``size`` is None where nobody does."""

    size: int | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run will take, and whether it has that.

    ``needs_bytes`` is the peak of the device on a GPU, of tensors on the CPU. Of a ``lower
    bound`` it is that of the part of the run that is simulated, or, where ``run`` is None, what
    is held whatever is computed; ``unknown`` says what is missing. ``verdict`` is ``unknown``
    where there is no limit, or a lower bound is below it. ``parts`` say who holds the bytes.
    ``run`` is what was simulated, ``lengths`` where its lengths are from.
    """

    kind: Kind
    device: str
    needs_bytes: int
    limit: Limit
    verdict: Outcome
    parts: Mapping[str, int] = field(hash=False)
    oom_probability: float | None = None
    allocated_peak_bytes: int | None = None
    reserved_peak_bytes: int | None = None
    unknown: tuple[str, ...] = ()
    lengths: str = ""
    run: Run | None = None
    measured: Measured | None = None

    def with_measured(self, measured: Measured) -> Forecast:
        """The same, with what was measured."""
        return replace(self, measured=measured)

    @property
    def error(self) -> float | None:
        """How far the predicted peak of tensors was off, as a share of the measured one.

        None before there is one that is exact, where there was only a lower bound, and where
        another device was asked about than the one that trained.
        """
        if self.measured is None or not self.measured.exact or self.kind == "lower bound":
            return None
        if self.allocated_peak_bytes is None:
            return None
        if (self.measured.reserved_peak_bytes is None) != (self.reserved_peak_bytes is None):
            return None
        return self.allocated_peak_bytes / self.measured.allocated_peak_bytes - 1

    @property
    def text(self) -> str:
        """One line of the verdict, one of the run, and one for each thing that is not known."""
        lines = [_HEADS[self.verdict](self), f"  {_settings(self)}"]
        return "\n".join([*lines, *(f"  not known: {reason}" for reason in self.unknown)])

    @property
    def comparison(self) -> str:
        """One line of predicted against measured, empty before there is anything measured."""
        if self.measured is None:
            return ""
        m, peak = self.measured, format_bytes(self.measured.allocated_peak_bytes)
        there = f"measured {peak} at most in {m.steps} steps ({m.how})"
        if self.kind == "lower bound":
            least = self.allocated_peak_bytes or self.needs_bytes
            return f"pre-flight: {there}; the lower bound was {format_bytes(least)}"
        predicted = format_bytes(self.allocated_peak_bytes or 0)
        if not m.exact:
            shown = f"the process shows {peak} ({m.how})"
            return f"pre-flight: predicted {predicted}; {shown}; record_allocations=True counts"
        if self.error is None:
            return f"pre-flight: {there}; the prediction was for {self.device}"
        return f"pre-flight: predicted {predicted}, {there}: {self.error:+.1%}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        run = self.run
        shown = run and {
            "model": run.model.id,
            "method": run.method.name,
            "settings": dict(run.method.settings),
            "training": asdict(run.training),
        }
        return {**asdict(replace(self, run=None)), "run": shown, "error": self.error}


def _given(forecast: Forecast) -> str:
    limit = forecast.limit
    return limit.source if limit.size is None else f"{format_bytes(limit.size)} ({limit.source})"


def _needed(forecast: Forecast) -> str:
    how = "at least " if forecast.kind == "lower bound" else "a predicted "
    bound = " (lower bound)" if forecast.kind == "lower bound" else ""
    return f"{how}{format_bytes(forecast.needs_bytes)}{bound}"


def _settings(forecast: Forecast) -> str:
    held = sorted(forecast.parts.items(), key=lambda item: -item[1])
    said = ", ".join(f"{name} {format_bytes(size)}" for name, size in held if size)
    if forecast.run is None:
        return f"counted: {said}"
    t, method = forecast.run.training, forecast.run.method.name
    return (
        f"{method} on {forecast.run.model.id}, {t.micro_batch_size} x {t.seq_len} tokens "
        f"({forecast.lengths}), {t.optimizer}: {said}"
    )


_HEADS = {
    "fits": lambda f: f"pre-flight: fits: {_needed(f)} of {_given(f)}",
    "tight": lambda f: (
        f"pre-flight: tight: {_needed(f)} of {_given(f)}; "
        f"runs out with a probability of {f.oom_probability:.0%}"
    ),
    "oom": lambda f: f"pre-flight: does not fit: needs {_needed(f)}, there are {_given(f)}",
    "unknown": lambda f: f"pre-flight: needs {_needed(f)}; {_room(f)}",
}


def _room(forecast: Forecast) -> str:
    if forecast.limit.size is None:
        return f"held against nothing: {forecast.limit.source}"
    return f"there are {_given(forecast)}, but not all that it takes is known"
