"""What a method says of its settings: which change no shape, and by which its tensors grow.

A run whose settings differ in such ways is answered by the same recording, so it is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from peftadvisor.methods.base import Dependence, Method
from peftadvisor.simulator.trace import Trace

_TRIED: Mapping[Dependence, Callable[[Any], tuple[Any, ...]]] = {
    "linear": lambda default: (default, default + 4, default + 8),
    "zero": lambda default: (0.1, 0.5),
    "none": lambda default: (default, 1, 8),
}


def broken_declarations(method: Method, simulated: Callable[..., Trace]) -> Iterator[str]:
    """Complaints if tensors or kernels depend on a setting otherwise than the method says.

    ``simulated(**settings)`` is a run of the method with some settings changed.
    """
    for parameter in method.hyperparameters:
        if parameter.shapes == "any":
            continue
        values = _TRIED[parameter.shapes](parameter.default)
        traces = [simulated(**{parameter.name: value}) for value in values]
        alike = all(_structure(trace) == _structure(traces[0]) for trace in traces)
        if not alike or not _evenly([_sizes(t) for t in traces], parameter.shapes == "linear"):
            yield f"shapes depend on {parameter.name} otherwise than '{parameter.shapes}'"


def _structure(trace: Trace) -> tuple[Any, ...]:
    """What a run does, without sizes."""
    return trace.event_kind, trace.event_ref, trace.event_tag, trace.kernel_name


def _sizes(trace: Trace) -> list[int]:
    """All sizes of a run."""
    parts = (*trace.kernel_touched, *trace.kernel_shapes, *trace.parameters_by_tag.values())
    return [*trace.storage_bytes, *trace.kernel_flops, *(n for part in parts for n in part)]


def _evenly(sizes: list[list[int]], grow: bool) -> bool:
    """Whether all sizes are the same in every run, or grow by the same from run to run."""
    if len({len(numbers) for numbers in sizes}) > 1:
        return False
    steps = np.diff(np.asarray(sizes, dtype=np.int64), axis=0)
    return not np.diff(steps, axis=0).any() if grow else not steps.any()
