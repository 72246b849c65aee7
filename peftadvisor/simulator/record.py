"""Record a model and a method: short runs at sample points, compiled and checked against depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from peftadvisor.data.models import max_positions
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.depth import at_depth, depth_fields, period
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recorder import (
    InexactError,
    compile_point,
    compile_recording,
    deepen,
    require_same_structure,
)
from peftadvisor.simulator.recording import BASE_UNITS, Recording
from peftadvisor.simulator.regimes import Regime, sample_points
from peftadvisor.simulator.step import Prepared, prepare, trace_run
from peftadvisor.simulator.trace import Trace
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

EXTRA_UNITS = 2


def record(
    model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: Device, regime: Regime
) -> Recording:
    """A recording of this run for all batches and lengths of one regime.

    ``training`` gives everything but batch and lengths.

    Raises:
        InexactError: the run does not reduce to formulas; simulate it directly.
        UsageError: the run cannot be built.
    """
    shape = _Shape.of(model)
    prepared = prepare(shape.at(model, BASE_UNITS), method, training)
    uses_target = _uses_target(prepared)
    limit = _position_limit(model, prepared)
    points = sample_points(regime, model.config, limit, uses_target)

    def run(ready: Prepared, point: Point) -> Trace:
        b, s, t = point
        there = dataclasses.replace(training, micro_batch_size=b, seq_len=s, target_len=t)
        return trace_run(ready, there, device)

    traces: list[Trace] = []
    for point in points:
        traces.append(run(prepared, point))
        require_same_structure(traces[0], traces[-1], point)
    if any(units != BASE_UNITS for units in traces[0].stack_units):
        raise InexactError(f"{model.id} has layers in no regular order")
    facts = {
        "units": [shape.units[stack.field] for stack in prepared.stacks],
        "regime": regime.key,
        "uses_target": uses_target,
        "uses_source": _uses_source(prepared),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    recording = compile_recording(traces, points, uses_target, facts)
    for index, stack in enumerate(prepared.stacks):
        deeper = shape.at(model, BASE_UNITS, {stack.field: BASE_UNITS + EXTRA_UNITS})
        units = [BASE_UNITS] * len(prepared.stacks)
        units[index] += EXTRA_UNITS
        trace = run(prepare(deeper, method, training), points[0])
        recording = deepen(recording, trace, points[0], units, index)
    return recording.condensed()


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """Depth fields of a model: units of each at full depth, and its prefix and period."""

    units: Mapping[str, int]
    patterns: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, model: ModelSpec) -> _Shape:
        """Read from the config.

        Raises:
            InexactError: a stack is too shallow, or has none.
        """
        fields = depth_fields(model.config)
        patterns = {field: period(model.config, field) for field in fields}
        units = {f: (n - patterns[f][0]) // patterns[f][1] for f, n in fields.items()}
        if not units or min(units.values()) < BASE_UNITS:
            raise InexactError(f"{model.id} has too few like layers to repeat ({units})")
        return cls(units, patterns)

    def at(
        self, model: ModelSpec, units: int, other: Mapping[str, int] | None = None
    ) -> ModelSpec:
        """The model with this many units in every stack, and others where named."""
        wanted = {**dict.fromkeys(self.units, units), **(other or {})}
        layers = {f: self.patterns[f][0] + n * self.patterns[f][1] for f, n in wanted.items()}
        return dataclasses.replace(model, config=at_depth(model.config, layers))


def _uses_target(prepared: Prepared) -> bool:
    from peftadvisor.simulator.batches import task_of

    return task_of(prepared.base).name in ("seq2seq", "speech-seq2seq", "ctc")


def _uses_source(prepared: Prepared) -> bool:
    from peftadvisor.simulator.batches import task_of

    return task_of(prepared.base).uses_seq_len


def _position_limit(model: ModelSpec, prepared: Prepared) -> int | None:
    decoder: Any = getattr(prepared.base.config, "max_target_positions", None)
    limits = [n for n in (max_positions(model), decoder) if n]
    return min(limits, default=None)




def record_point(
    model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: Device
) -> Recording:
    """The full model at one batch and length, as a recording that has no variables.

    Raises:
        UsageError: the run cannot be built.
    """
    prepared = prepare(model, method, training)
    point = (training.micro_batch_size, training.seq_len, training.target_len)
    trace = trace_run(prepared, training, device)
    facts = {
        "units": [],
        "regime": "point",
        "uses_target": _uses_target(prepared),
        "uses_source": _uses_source(prepared),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    return compile_point(trace, point, facts)
