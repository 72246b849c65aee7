"""One run's recordings as a page carries them, so that it can answer for other batches itself.

Of every recording that the stops need the page has its events in full, the formula of every
storage's size, and the terms and coefficients of the formulas: enough to replay the allocator
there. Step times, which rest on the kernels' cost model, are worked out here at every stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from peftadvisor.advisor import stops
from peftadvisor.advisor.stops import Files
from peftadvisor.cost_model.kernel_classes import Kernels as Classified
from peftadvisor.cost_model.kernel_classes import classified
from peftadvisor.cost_model.loading import loading
from peftadvisor.cost_model.memory import predict_loading
from peftadvisor.cost_model.time import step_seconds_at
from peftadvisor.cost_model.uncertainty import bundled_scores, interval_factors, kind_of
from peftadvisor.cuda.outside import context_bytes, matmul_workspace_bytes
from peftadvisor.data.prices import cheapest_price
from peftadvisor.profiles import Memory
from peftadvisor.simulator.library import Kernels, attention_kernels
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import Integers
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.tape import Reel, Tape, reel_of, tape_of
from peftadvisor.specs import Budget, GpuSpec, RunSpec

NONE = -1
"""Stands for a tape where nothing is on file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU of the what-if; ``loading`` is the peak while weights are loaded, if it counts.

    ``note`` says what differs where the recording is that of another kind of GPU.
    """

    id: str
    name: str
    usable_bytes: int
    context_bytes: int
    workspace_bytes: int
    usd_per_hour: float | None
    loading: Memory | None
    loading_risk: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """Stops of batch, length, size and GPU, and what the page needs to answer at each of them.

    ``tape`` is GPU × size × batch × length: the place in ``tapes``, NONE where nothing is on file;
    ``step_s`` likewise, 0 there. ``start`` has the run's own places.
    """

    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    size_name: str | None
    sizes: tuple[int, ...]
    cards: tuple[Card, ...]
    start: tuple[int, int, int, int]
    target_len: int
    micro_batches: int
    counted: tuple[bool, bool]
    accepted_risk: float
    scores: NDArray[np.float64] = field(hash=False, compare=False)
    weights: NDArray[np.float64] = field(hash=False, compare=False)
    interval: tuple[float, float]
    tapes: tuple[Tape, ...]
    tape: Integers = field(hash=False, compare=False)
    step_s: NDArray[np.float64] = field(hash=False, compare=False)


class _Shelf:
    """Tapes of recordings, one for each, and one reel for all sizes of a method.

    Recordings are told apart by their parts in memory, which sizes of one recording share; they
    are kept here, so that none is taken for another that has its place.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.tapes: list[Tape] = []
        self._places: dict[int, int] = {}
        self._reels: dict[int, Reel] = {}
        self._kept: list[Recording] = []

    def place(self, simulated: Simulated) -> int:
        """Where its tape is."""
        recording = simulated.recording
        if id(recording.formulas) not in self._places:
            reel = self._reels.get(id(recording.events)) or reel_of(simulated)
            self._reels[id(recording.events)] = reel
            self._places[id(recording.formulas)] = len(self.tapes)
            self.tapes.append(tape_of(simulated, reel))
            self._kept.append(recording)
        return self._places[id(recording.formulas)]


def what_if(run: RunSpec, budget: Budget, files: Files) -> WhatIf | None:
    """The what-if of a run on one GPU; None where nothing of it is on file that varies."""
    own = files.known(run)
    if own is None:
        return None
    axes = stops.batches(run), stops.lengths(run)
    sizes, shelf = stops.sizes(run, files), _Shelf(files)
    cards = [gpu for gpu in stops.gpus(run) if files.known(stops.on(run, gpu))]
    tape, step = _grids(run, cards, sizes or (None,), axes, shelf)
    kind, size = kind_of(run.training.loss, run.gpus), stops.size_of(run)
    facts, scores = own.recording.facts, bundled_scores(kind)
    return WhatIf(
        batches=axes[0],
        lengths=axes[1],
        size_name=stops.size_name(run),
        sizes=sizes,
        cards=tuple(_card(run, gpu, files) for gpu in cards),
        start=(
            [gpu.id for gpu in cards].index(run.gpu.id),
            0 if size is None else sizes.index(size),
            axes[0].index(run.training.micro_batch_size),
            axes[1].index(run.training.seq_len),
        ),
        target_len=run.training.target_len,
        micro_batches=run.training.gradient_accumulation_steps,
        counted=(bool(facts["uses_source"]), bool(facts["uses_target"])),
        accepted_risk=budget.max_oom_risk,
        scores=scores.values,
        weights=scores.weights,
        interval=interval_factors(kind),
        tapes=tuple(shelf.tapes),
        tape=tape,
        step_s=step,
    )


Axes = tuple[Sequence[int], Sequence[int]]


def _grids(
    run: RunSpec, cards: Sequence[GpuSpec], sizes: Sequence[int | None], axes: Axes, shelf: _Shelf
) -> tuple[Integers, NDArray[np.float64]]:
    """Per GPU, size, batch and length, the tape and the seconds of a step."""
    shape = len(cards), len(sizes), len(axes[0]), len(axes[1])
    tape, step = np.full(shape, NONE), np.zeros(shape)
    for number, size in enumerate(sizes):
        sized = run if size is None else stops.with_size(run, size)
        alike: dict[Kernels, list[int]] = {}
        for place, gpu in enumerate(cards):
            alike.setdefault(attention_kernels(gpu), []).append(place)
        for places in alike.values():
            there = stops.on(sized, cards[places[0]])
            for rows, columns, found in _pieces(there, axes, shelf.files):
                kernels = _classified(found, axes, rows, columns)
                for place in places:
                    tape[place, number, rows, columns] = shelf.place(found)
                    step[place, number, rows, columns] = step_seconds_at(
                        found,
                        kernels,
                        np.full(len(rows), run.training.gradient_accumulation_steps),
                        stops.on(sized, cards[place]),
                    )
    return tape, step


def _pieces(
    run: RunSpec, axes: Axes, files: Files
) -> Iterable[tuple[list[int], list[int], Simulated]]:
    """The places of batches and lengths that one recording serves, and it."""
    found: dict[int, tuple[list[int], list[int], Simulated]] = {}
    for row, batch in enumerate(axes[0]):
        for column, length in enumerate(axes[1]):
            there = files.known(stops.at(run, batch, length))
            if there:
                key = id(there.recording.formulas)
                rows, columns, _ = found.setdefault(key, ([], [], there))
                rows.append(row)
                columns.append(column)
    return found.values()


def _classified(found: Simulated, axes: Axes, rows: list[int], columns: list[int]) -> Classified:
    target = found.point[2]
    points = [(axes[0][r], axes[1][c], target) for r, c in zip(rows, columns, strict=True)]
    return classified(found.recording.kernel_table(points, found.units))


def _card(run: RunSpec, gpu: GpuSpec, files: Files) -> Card:
    there = stops.on(run, gpu)
    found = files.known(there)
    load = loading(found, there) if found else None
    predicted = predict_loading(load, there) if load else None
    price = cheapest_price(gpu.id)
    return Card(
        id=gpu.id,
        name=gpu.name,
        usable_bytes=gpu.usable_bytes,
        context_bytes=context_bytes(gpu).typical,
        workspace_bytes=matmul_workspace_bytes(gpu),
        usd_per_hour=price.usd_per_gpu_hour if price else None,
        loading=predicted.memory if predicted else None,
        loading_risk=predicted.oom_probability if predicted else 0.0,
        note=found.note if found else "",
    )
