"""Where a run could go from where it is: batches, lengths, sizes and GPUs that are tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from peftadvisor.advisor.estimating import variant_of
from peftadvisor.data.gpus import load_gpus
from peftadvisor.data.models import max_positions
from peftadvisor.data.prices import cheapest_price
from peftadvisor.methods import find_method
from peftadvisor.simulator.library import Kernels
from peftadvisor.simulator.obtain import AT_FULL_DEPTH, Simulated, on_file
from peftadvisor.simulator.regimes import Regime, regime_of
from peftadvisor.specs import GpuSpec, MethodSpec, RunSpec

BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LENGTHS = (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384)
SIZES = (2, 4, 8, 16, 32, 64, 128)


def batches(run: RunSpec) -> tuple[int, ...]:
    """Micro-batches to try, the run's own among them."""
    return _with(BATCHES, run.training.micro_batch_size)


def lengths(run: RunSpec) -> tuple[int, ...]:
    """Lengths to try, up to what the model has positions for."""
    limit = max_positions(run.model)
    own = run.training.seq_len
    return _with((n for n in LENGTHS if limit is None or n <= limit), own)


def size_name(run: RunSpec) -> str | None:
    """What the method calls its size: its rank, say; None where it has none."""
    return find_method(run.method.name).size


def size_of(run: RunSpec) -> int | None:
    """The size that the run has."""
    method = find_method(run.method.name)
    size = method.settings(run.method).get(method.size or "")
    return size if type(size) is int and size > 0 else None


def sizes(run: RunSpec, files: Files) -> tuple[int, ...]:
    """Sizes of the method to try; the run's own alone where it is not on file for others."""
    own = size_of(run)
    if own is None:
        return ()
    return tuple(n for n in _with(SIZES, own) if n == own or files.known(with_size(run, n)))


def gpus(run: RunSpec) -> tuple[GpuSpec, ...]:
    """GPUs that have a price, and the run's own, by memory."""
    found = {gpu.id: gpu for gpu in load_gpus().values() if cheapest_price(gpu.id)}
    found[run.gpu.id] = run.gpu
    return tuple(sorted(found.values(), key=lambda gpu: (gpu.usable_bytes, gpu.id)))


def at(run: RunSpec, batch: int, length: int) -> RunSpec:
    """The run with another micro-batch and length."""
    training = dataclasses.replace(run.training, micro_batch_size=batch, seq_len=length)
    return dataclasses.replace(run, training=training)


def on(run: RunSpec, gpu: GpuSpec) -> RunSpec:
    """The run on another GPU."""
    return dataclasses.replace(run, gpu=gpu)


def with_size(run: RunSpec, size: int) -> RunSpec:
    """The run with another size of its method."""
    if size == size_of(run):
        return run
    method = run.method.with_settings(**{str(size_name(run)): size})
    return dataclasses.replace(run, method=method)


class Files:
    """What is on file for runs that differ in batch, length, size and GPU alone; looked up once."""

    def __init__(self) -> None:
        """Nothing is looked up yet."""
        self._found: dict[tuple[Kernels, MethodSpec, Regime], Simulated | None] = {}

    def known(self, run: RunSpec) -> Simulated | None:
        """The run as it is on file, at exactly its lengths; None where nothing is."""
        t, variant = run.training, variant_of(run)
        point = (t.micro_batch_size, t.seq_len, t.target_len)
        key = (variant.kernels, run.method, regime_of(point, run.model.config))
        if key not in self._found:
            found = on_file(variant)
            varies = found and found.source != AT_FULL_DEPTH and found.point == point
            self._found[key] = found if varies else None
        found = self._found[key]
        return found and dataclasses.replace(found, point=point)


def _with(values: Iterable[int], own: int) -> tuple[int, ...]:
    return tuple(sorted({*values, own}))
