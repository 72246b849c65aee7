"""The smallest change after which a run fits: what may be changed, and what each change costs.

Changes that leave the result as it is come first, those that give something up later:

    micro-batch, accumulation  the same batch in smaller pieces: slower, nothing else
    checkpointing              activations are computed twice: slower, nothing else
    loss                       logits are never held in fp32: another kernel, the same loss
    optimizer                  states in 8 bits
    quantization               the frozen base in 4 bits
    seq_len                    samples are cut: the data change

All subsets are tried, the cheapest by ``COSTS`` first; within one, the largest micro-batch that
fits is taken. Left out: other methods and sizes, and other GPUs, for which ``recommend`` is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from peftadvisor.advisor.estimating import estimate
from peftadvisor.advisor.weighing import divisors, most_bytes_on
from peftadvisor.errors import UsageError
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress
from peftadvisor.specs import Budget, TrainingSpec

Changes = Mapping[str, Any]

COSTS: Mapping[str, float] = {
    "gradient_checkpointing": 1,
    "loss": 2,
    "optimizer": 3,
    "quantization": 6,
    "seq_len": 12,
}
"""What a change gives up, in no unit but order; a sum of cheaper ones goes before a dearer one."""

SHORTER = (3 / 4, 1 / 2, 1 / 4)
"""Shares of the length that are tried, the longest first."""
STEP = 64  # tokens, to which shorter lengths are rounded down


@dataclass(frozen=True, slots=True)
class Lessened:
    """A change of training settings and what the run then takes."""

    changes: Changes
    estimate: Estimate


_SAVED: Mapping[str, tuple[tuple[str, float], ...]] = {
    "gradient_checkpointing": (("activation_bytes", 1),),
    "loss": (("logits_bytes", 1),),
    "optimizer": (("optimizer_bytes", 3 / 4),),
    "quantization": (("weights_bytes", 7 / 8),),  # 4.1 of 32 bits
    "seq_len": (("activation_bytes", 1), ("logits_bytes", 1)),
}
"""The most that a change can take off each part of a peak; fragmentation may go with any."""


def smallest_change(
    found: Estimate,
    budget: Budget,
    offered: Callable[[Changes], bool],
    progress: Progress | None = None,
) -> Lessened | None:
    """The cheapest change with which a run that does not fit does; None where none is found.

    ``offered`` says whether whoever runs it can be told a change. What cannot be predicted with
    what is installed, or cannot exist, is passed over.
    """
    trial = _Trial(found, budget, offered, progress)
    for changes in _subsets(found.run.training):
        if offered(changes) and not trial.hopeless(changes):
            lessened = trial.with_largest_batch(changes)
            if lessened is not None:
                return lessened
    return None


def _subsets(training: TrainingSpec) -> Iterator[Changes]:
    """Every set of changes but of the batch, the cheapest first; the empty one is the first."""
    levers = dict(_levers(training))
    names = [name for name in COSTS if name in levers]
    chosen = [set_ for size in range(len(names) + 1) for set_ in combinations(names, size)]
    for set_ in sorted(chosen, key=lambda names: sum(COSTS[name] for name in names)):
        for values in product(*(levers[name] for name in set_)):
            yield dict(zip(set_, values, strict=True))


def _levers(training: TrainingSpec) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What may be changed, and to what."""
    if training.gradient_checkpointing == "none":
        yield "gradient_checkpointing", ("non-reentrant",)
    if training.loss == "torch":
        yield "loss", ("fused-linear",)
    if training.optimizer.startswith("adamw") and training.optimizer != "adamw-8bit":
        yield "optimizer", ("adamw-8bit",)
    if training.quantization == "none":
        yield "quantization", ("nf4-dq",)
    shorter = {max(STEP, int(share * training.seq_len) // STEP * STEP) for share in SHORTER}
    lengths = tuple(sorted((n for n in shorter if n < training.seq_len), reverse=True))
    if lengths:
        yield "seq_len", lengths


class _Trial:
    """Changes put to the estimate one by one, and what those that failed say of others."""

    def __init__(
        self,
        start: Estimate,
        budget: Budget,
        offered: Callable[[Changes], bool],
        progress: Progress | None,
    ) -> None:
        run = start.run
        self.start, self.run, self.budget = start, run, budget
        self.offered, self.progress = offered, progress
        self.most_bytes = most_bytes_on(budget, run.gpu, run.training.loss, run.gpus)
        self.failed: list[tuple[Changes, Estimate]] = []

    def hopeless(self, changes: Changes) -> bool:
        """Whether a failed run with fewer changes shows that these are not enough.

        At the moment of its peak that run would still hold all that the further ones leave.
        """
        return any(
            _least(found, changes.keys() - fewer.keys()) > self.most_bytes
            for fewer, found in self.failed
            if fewer.items() <= changes.items()
        )

    def with_largest_batch(self, changes: Changes) -> Lessened | None:
        """The changes with the largest micro-batch that fits, the effective batch kept."""
        t = self.run.training
        batch = t.micro_batch_size * t.gradient_accumulation_steps
        one, *larger = (n for n in divisors(batch) if n <= t.micro_batch_size)
        least = self._fitting(_with_batch(changes, t, one))
        if least is None:
            return None
        for size in reversed(larger):
            every = _with_batch(changes, t, size)
            found = self._fitting(every) if every and self.offered(every) else None
            if found is not None:
                return found
        return least if least.changes and self.offered(least.changes) else None

    def _fitting(self, changes: Changes) -> Lessened | None:
        training = dataclasses.replace(self.run.training, **changes)
        found = self._estimated(training) if changes else self.start
        if found is None:
            return None
        if found.verdict == "fits":
            return Lessened(changes, found)
        if training.micro_batch_size == 1:
            without_batch = {k: v for k, v in changes.items() if k in COSTS}
            self.failed.append((without_batch, found))
        return None

    def _estimated(self, training: TrainingSpec) -> Estimate | None:
        try:
            changed = dataclasses.replace(self.run, training=training)
            return estimate(changed, budget=self.budget, progress=self.progress)
        except UsageError:
            return None


def _least(found: Estimate, changed: Iterable[str]) -> int:
    """What an estimate's peak would still be, whatever these changes save."""
    parts = dataclasses.asdict(found.memory.breakdown)
    saved = {"fragmentation_bytes": 1.0}
    for name in changed:
        for part, share in _SAVED[name]:
            saved[part] = max(share, saved.get(part, 0))
    return int(sum(held * (1 - saved.get(part, 0)) for part, held in parts.items()))


def _with_batch(changes: Changes, t: TrainingSpec, size: int) -> Changes:
    if size == t.micro_batch_size:
        return changes
    accumulation = t.micro_batch_size * t.gradient_accumulation_steps // size
    batch = {"micro_batch_size": size, "gradient_accumulation_steps": accumulation}
    return {**batch, **changes}
