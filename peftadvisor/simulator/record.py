"""Record a model and a method: short runs at sample points, compiled and checked against depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from peftadvisor.data.models import max_positions
from peftadvisor.methods import find_method
from peftadvisor.methods.sites import layout_of
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.batches import task_of
from peftadvisor.simulator.build import Stack, build_model
from peftadvisor.simulator.deepening import deepen
from peftadvisor.simulator.depth import at_depth, depth_fields, period
from peftadvisor.simulator.growing import DirectRun, grow, require_same, widened
from peftadvisor.simulator.library import REPRESENTATIVE, Variant
from peftadvisor.simulator.parts import BASE_UNITS, MIDDLE
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recorder import (
    InexactError,
    SplitError,
    compile_recording,
    condensed,
    flattened,
    require_same_structure,
)
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.regimes import Regime, sample_points
from peftadvisor.simulator.step import (
    Prepared,
    parameters_by_tag,
    prepare,
    trace_run,
    units_of,
)
from peftadvisor.simulator.trace import Trace, layer_tag, total_counts
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

EXTRA_UNITS = 2
LARGEST, SMALLEST = (1025, 257, 65), (1, 2)
"""Sizes of a method that are run: a recording holds between the first of each that are alike."""
AMPERE = Device((8, 0))
ANY_BATCH = Regime(single=False, lengths="any")


def record(
    model: ModelSpec,
    method: MethodSpec,
    training: TrainingSpec | None = None,
    device: Device = AMPERE,
    regime: Regime = ANY_BATCH,
) -> Recording:
    """A recording of this run for all batches and lengths of one regime.

    ``training`` gives everything but batch and lengths. Depth is a variable where the layers of
    every stack repeat; else the full model is recorded.

    Raises:
        InexactError: batch and lengths do not reduce to formulas; simulate directly.
        UsageError: the run cannot be built.
    """
    return _Work(model, method, training or TrainingSpec(), device, regime).record()


def record_growing(variant: Variant, regime: Regime, base: Recording | None = None) -> Recording:
    """A recording of the variant for every size of its method, as every rank.

    ``base`` is its recording at the method's default size, where there is one.

    Raises:
        InexactError: what is done or held does not grow evenly with the size.
        UsageError: the run cannot be built.
    """
    general, device = variant.general, Device(REPRESENTATIVE[variant.kernels])
    work = _Work(general.model, general.method, general.training, device, regime)
    recorded = base or work.record()
    grown = _first_of(LARGEST, lambda size: _learned(work, recorded, size))
    return _first_of(SMALLEST, lambda size: _checked(work, grown, size))


def _first_of(sizes: Sequence[int], make: Callable[[int], Recording]) -> Recording:
    """What is made of the first size of which it can be."""
    for size in sizes[:-1]:
        try:
            return make(size)
        except InexactError:
            continue
    return make(sizes[-1])


def _learned(work: _Work, recording: Recording, size: int) -> Recording:
    """The recording with its growth, learned from runs at this size, held against full depth."""
    method, there = find_method(work.method.name), work.at_size(size)
    units, runs = recording.facts["units"], there.direct_runs(not recording.facts["units"])
    grown = grow(recording, (int(method.defaults[str(method.size)]), size), runs)
    assert grown.growth is not None
    if method.stored:
        more, rest = divmod(there.stored() - recording.facts["stored"], size - grown.growth.size)
        if rest:
            raise InexactError("what is stored does not grow evenly with the size")
        grown = dataclasses.replace(grown, growth=dataclasses.replace(grown.growth, stored=more))
    if units:
        _require_alike(there.prepare(work.model), grown.at_size(size), runs[0].trace)
    return grown


def _checked(work: _Work, recording: Recording, size: int) -> Recording:
    """The recording, said to hold for this size if a deeper direct run shows that."""
    wider = widened(recording, size, size)
    run = work.at_size(size).last_run(not recording.facts["units"])
    require_same(wider.at_size(size), run)
    return wider


@dataclasses.dataclass(frozen=True, slots=True)
class _Work:
    """What is to be recorded."""

    model: ModelSpec
    method: MethodSpec
    training: TrainingSpec
    device: Device
    regime: Regime

    def at_size(self, size: int) -> _Work:
        """The same with the method at another size."""
        name = find_method(self.method.name).size
        return dataclasses.replace(self, method=self.method.with_settings(**{str(name): size}))

    def record(self) -> Recording:
        """Few layers if they repeat, else the full model."""
        try:
            return _record_short(self, _Shape.of(self.model))
        except SplitError:
            raise
        except InexactError:
            return _record_whole(self)

    def direct_runs(self, whole: bool) -> list[DirectRun]:
        """A few runs of base depth, then one per stack that is deeper; or of the full model."""
        model = self.model if whole else _Shape.of(self.model).at(self.model, BASE_UNITS)
        prepared = self.prepare(model)
        stacks = () if whole else prepared.stacks
        points = self.points(prepared)
        units = [BASE_UNITS] * len(stacks)
        chosen = [points[0], points[1], points[3]]
        traces = [self.run(prepared, point) for point in chosen]
        if whole:
            traces = [flattened(trace) for trace in traces]
        runs = [DirectRun(*run, units) for run in zip(traces, chosen, strict=True)]
        return [*runs, *(self.deeper_run(stacks, index, points[0]) for index in range(len(stacks)))]

    def deeper_run(self, stacks: Sequence[Stack], index: int, point: Point) -> DirectRun:
        """A run with more units in one stack."""
        depth = {stacks[index].field: BASE_UNITS + EXTRA_UNITS}
        deeper = _Shape.of(self.model).at(self.model, BASE_UNITS, depth)
        units = [BASE_UNITS + EXTRA_UNITS * (other == index) for other in range(len(stacks))]
        return DirectRun(self.run(self.prepare(deeper), point), point, units)

    def last_run(self, whole: bool) -> DirectRun:
        """A run at the last sample point with more units in every stack, or of the full model."""
        units = BASE_UNITS + EXTRA_UNITS
        model = self.model if whole else _Shape.of(self.model).at(self.model, units)
        prepared = self.prepare(model)
        point = self.points(prepared)[-1]
        trace = self.run(prepared, point)
        if whole:
            return DirectRun(flattened(trace), point, [])
        return DirectRun(trace, point, [units] * len(prepared.stacks))

    def stored(self) -> int:
        """How many parameters are kept, by the method's formula."""
        method = find_method(self.method.name)
        assert method.stored is not None
        layout = layout_of(build_model(self.model, self.training))
        return method.stored(layout, method.settings(self.method))

    def prepare(self, model: ModelSpec) -> Prepared:
        return prepare(model, self.method, self.training)

    def points(self, prepared: Prepared) -> list[Point]:
        limit = _position_limit(self.model, prepared)
        return sample_points(self.regime, self.model.config, limit, _uses_target(prepared))

    def run(self, prepared: Prepared, point: Point) -> Trace:
        b, s, t = point
        there = dataclasses.replace(self.training, micro_batch_size=b, seq_len=s, target_len=t)
        return trace_run(prepared, there, self.device)

    def traces(self, prepared: Prepared, points: list[Point]) -> list[Trace]:
        """Runs at all points; stops at the first that does other things than the first."""
        traces: list[Trace] = []
        for point in points:
            traces.append(self.run(prepared, point))
            require_same_structure(traces[0], traces[-1], point)
        return traces


def _record_short(work: _Work, shape: _Shape) -> Recording:
    """Few layers, with depth as a variable."""
    prepared = work.prepare(shape.at(work.model, BASE_UNITS))
    points = work.points(prepared)
    traces = work.traces(prepared, points)
    if any(units != BASE_UNITS for units in traces[0].stack_units):
        raise InexactError(f"{work.model.id} has layers in no regular order")
    units = [shape.units[stack.field] for stack in prepared.stacks]
    facts = _facts(prepared, work, units)
    recording = compile_recording(traces, points, _uses_target(prepared), facts)
    for index in range(len(prepared.stacks)):
        deeper = work.deeper_run(prepared.stacks, index, points[0])
        recording = deepen(recording, *deeper, index)
    _require_alike(work.prepare(work.model), recording, traces[0])
    return condensed(recording)


def _require_alike(full: Prepared, recording: Recording, short: Trace) -> None:
    """Hold what is trained at full depth, layer by layer, against what the short run was like.

    Raises:
        InexactError: the method treats deep layers otherwise, as one that trains the last few.
    """
    counts = parameters_by_tag(full)
    for index, stack in enumerate(full.stacks):
        units = units_of(stack)
        for unit in range(units):
            like = unit if unit == 0 else BASE_UNITS - 1 if unit == units - 1 else MIDDLE
            seen = counts.get(layer_tag(index, unit))
            if seen != short.parameters_by_tag.get(layer_tag(index, like)):
                raise InexactError(f"layer {unit} is trained otherwise than those recorded")
    if total_counts(counts) != recording.parameter_counts(recording.facts["units"]):
        raise InexactError("parameters do not grow by the same number with every layer")


def _record_whole(work: _Work) -> Recording:
    """The full model, with batch and lengths as variables."""
    prepared = work.prepare(work.model)
    points = work.points(prepared)
    traces = [flattened(trace) for trace in work.traces(prepared, points)]
    facts = _facts(prepared, work, [])
    return condensed(compile_recording(traces, points, _uses_target(prepared), facts))


def record_point(
    model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: Device
) -> Recording:
    """The full model at one batch and length, as a recording that has no variables.

    Raises:
        UsageError: the run cannot be built.
    """
    prepared = prepare(model, method, training)
    point = (training.micro_batch_size, training.seq_len, training.target_len)
    trace = flattened(trace_run(prepared, training, device))
    work = _Work(model, method, training, device, ANY_BATCH)
    return condensed(compile_recording([trace], [point], False, _facts(prepared, work, [])))


def _facts(prepared: Prepared, work: _Work, units: list[int]) -> dict[str, Any]:
    method = find_method(work.method.name)
    settings = method.settings(work.method)
    longer = settings[method.virtual_tokens] if method.virtual_tokens else 0
    kept = {}
    if method.stored:
        kept["stored"] = work.stored()
    return {
        **kept,
        "units": units,
        "regime": work.regime.key,
        "virtual_tokens": longer,
        "uses_target": _uses_target(prepared),
        "uses_source": task_of(prepared.base).uses_seq_len,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }


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

    def at(self, model: ModelSpec, units: int, other: Mapping[str, int] | None = None) -> ModelSpec:
        """The model with this many units in every stack, and others where named."""
        wanted = {**dict.fromkeys(self.units, units), **(other or {})}
        layers = {f: self.patterns[f][0] + n * self.patterns[f][1] for f, n in wanted.items()}
        return dataclasses.replace(model, config=at_depth(model.config, layers))


def _uses_target(prepared: Prepared) -> bool:
    return task_of(prepared.base).name in ("seq2seq", "speech-seq2seq", "ctc")


def _position_limit(model: ModelSpec, prepared: Prepared) -> int | None:
    decoder: Any = getattr(prepared.base.config, "max_target_positions", None)
    limits = [n for n in (max_positions(model), decoder) if n]
    return min(limits, default=None)
