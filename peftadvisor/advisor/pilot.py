"""A cheap check before the full run: few learning rates on part of the data, then seeds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.specs import Job

SHARES = (0.05, 0.10)
FACTOR = 3.0
Z = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotPlan:
    """What to run first: every learning rate with one seed on part of the data, the best again.

    ``examples_low`` and ``examples_high`` are that part, None where the size of the data is not
    said. ``detectable_difference`` is how far two accuracies must lie apart on the test set to
    tell them from chance (95 %), None where its size is not said.
    """

    learning_rates: tuple[float, ...]
    first_seeds: int
    then_seeds: int
    examples_low: int | None
    examples_high: int | None
    test_examples: int | None
    accuracy: float
    detectable_difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def pilot_plan(
    learning_rate: float, job: Job, *, test_examples: int | None, accuracy: float = 0.5
) -> PilotPlan:
    """Three learning rates around one, and what the test set can tell apart.

    ``accuracy`` is about what is expected; 0.5 is the least favourable.

    Raises:
        UsageError: a rate or a number of examples that is not positive, or an accuracy that is
            no share.
    """
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise UsageError(f"learning_rate is {learning_rate}; it must be a positive number")
    low, high = (None if job.examples is None else _part(job.examples, s) for s in SHARES)
    return PilotPlan(
        learning_rates=(learning_rate / FACTOR, learning_rate, learning_rate * FACTOR),
        first_seeds=1,
        then_seeds=2,
        examples_low=low,
        examples_high=high,
        test_examples=test_examples,
        accuracy=accuracy,
        detectable_difference=(
            None if test_examples is None else detectable_difference(test_examples, accuracy)
        ),
    )


def detectable_difference(test_examples: int, accuracy: float) -> float:
    """1.96 · √(2·p·(1 - p) / n): the 95 % half-width of a difference of two accuracies.

    Raises:
        UsageError: no test examples, or an accuracy that is not between 0 and 1.
    """
    if test_examples < 1:
        raise UsageError(f"test_examples is {test_examples}; it must be 1 or more")
    if not 0 < accuracy < 1:
        raise UsageError(f"accuracy is {accuracy}; it must lie between 0 and 1")
    return Z * math.sqrt(2 * accuracy * (1 - accuracy) / test_examples)


def _part(examples: int, share: float) -> int:
    return max(1, math.ceil(examples * share))
