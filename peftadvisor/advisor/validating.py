"""Many runs predicted: identical ones once, those of one recording by one process."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

from peftadvisor.advisor.estimating import estimate, variant_of, with_implied_quantization
from peftadvisor.advisor.parallel import map_forked
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress
from peftadvisor.specs import Budget, RunSpec

Prediction = Estimate | str
"""An estimate, or why there is none."""


def predict_each(runs: Iterable[RunSpec], progress: Progress) -> dict[RunSpec, Prediction]:
    """What each run would do; a run that cannot be predicted gets the reason.

    Missing recordings are made and kept, one process for all runs of a recording.
    """
    groups: dict[Hashable, list[RunSpec]] = {}
    for run in dict.fromkeys(runs):
        groups.setdefault(_recording_of(run), []).append(run)
    jobs = list(enumerate(groups.values(), 1))

    def predict(job: tuple[int, Sequence[RunSpec]]) -> list[Prediction]:
        number, alike = job
        first = alike[0]
        progress(f"Predicting {number} of {len(jobs)}: {first.method.name} on {first.model.id}")
        return [_prediction(run) for run in alike]

    done = map_forked(predict, jobs)
    return {
        run: prediction
        for (_, alike), predictions in zip(jobs, done, strict=True)
        for run, prediction in zip(alike, predictions, strict=True)
    }


def _prediction(run: RunSpec) -> Prediction:
    try:
        return estimate(run, budget=Budget())
    except PeftAdvisorError as error:
        return str(error)


def _recording_of(run: RunSpec) -> Hashable:
    """What runs share that one recording serves: all but GPU, batch and lengths."""
    variant = variant_of(with_implied_quantization(run))
    training = dataclasses.replace(
        variant.training,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        seq_len=1,
        target_len=1,
    )
    return variant.model.config_key, variant.method, training, variant.kernels
