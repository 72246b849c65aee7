"""Fit the constants of each GPU on published step times; print errors, write ``gpu_rates.csv``.

    python benchmarks/fit_rates.py MEASUREMENTS.csv [--write]

Per GPU, least squares on log(measured / predicted) with Huber weights and a prior on the log of
each constant, which holds those that the runs do not tell. Pretraining runs share two nuisance
constants: their time beyond what is simulated (sharding), found on the GPU that also has
fine-tuning runs, and the speed of their older attention kernel.

Errors are printed of the fit itself, of a fit without the run's own method or model (``left
out``), of a fit without its source, and with constants from other GPUs (``spec``). Intervals:
with fine-tuning runs on the GPU, the 5 % and 95 % quantiles of errors left out or without the
source; with pretraining runs only, of the fit's own and of each source predicted from the other;
for a further GPU, Student's t over the mean errors of the GPUs here.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from timed_runs import PRETRAINING, TimedRun, timed_runs

from peftadvisor.cost_model.kernel_classes import Floats
from peftadvisor.cost_model.time import step_parts
from peftadvisor.data.rates import DEFAULT
from peftadvisor.data.rates import bundled_rates as bundled
from peftadvisor.data.tables import catalog_path

PRIOR: Mapping[str, tuple[float, float]] = {
    "matmul_share": (0.9, 0.2),
    "fp32_matmul_share": (0.75, 0.2),
    "attention_share": (1.2, 0.1),
    "bandwidth_share": (0.85, 0.1),
    "optimizer_share": (0.8, 0.15),
    "cache_gain": (2.0, 0.3),
    "kernel_s": (2.5e-6, 0.3),
    "dispatch_s": (1e-5, 0.3),
    "overhead": (1.0, 0.15),
    "old_attention": (1.0, 0.5),
}
"""Start, and standard deviation of its logarithm. 4-bit weights cost too little to tell."""
NUISANCE = ("overhead", "old_attention")
TOLD_BY_PRETRAINING = ("matmul_share", "old_attention")
"""Elementwise kernels of those runs were fused in other ways."""
STUDENT = {1: 6.31, 2: 2.92, 3: 2.35, 4: 2.13, 5: 2.02, 6: 1.94, 7: 1.89, 8: 1.86}
"""The 95 % quantile of Student's t by degrees of freedom."""
DEQUANTIZE_SHARE = 0.4
SIGMA, HUBER = 0.05, 1.5
STEP, ROUNDS = 0.02, 8
Values = dict[str, float]


def predicted(run: TimedRun, values: Values) -> float:
    """Seconds of a step with these constants."""
    old = run.source == PRETRAINING
    constants = {name: value for name, value in values.items() if name not in NUISANCE}
    constants["attention_share"] *= values["old_attention"] if old else 1.0
    rates = dataclasses.replace(bundled(run.gpu.id), **constants)
    step = step_parts(run.uses, run.training, run.gpu, rates).step_s
    return step * (values["overhead"] if old else 1.0)


def fit(runs: Sequence[TimedRun], start: Values, fixed: Iterable[str] = ()) -> Values:
    """Constants by penalized robust least squares; each source weighs the same."""
    names = [name for name in PRIOR if name not in fixed]
    prior = np.log([start[name] for name in names])
    width = np.array([PRIOR[name][1] for name in names])
    sizes = [sum(r.source == run.source for r in runs) for run in runs]
    weight = np.array([max(sizes) / size for size in sizes])
    measured = np.log([run.measured_s for run in runs])

    def logs(x: Floats) -> Floats:
        values = {**start, **dict(zip(names, np.exp(x).tolist(), strict=True))}
        return np.log([predicted(run, values) for run in runs])

    x = prior.copy()
    for _ in range(ROUNDS):
        here = logs(x)
        slopes = np.stack([(logs(x + STEP * e) - here) / STEP for e in np.eye(len(x))], axis=1)
        off = (measured - here) / SIGMA
        trust = weight * np.minimum(1, HUBER / np.maximum(np.abs(off), 1e-9))
        normal = (slopes * trust[:, None]).T @ slopes / SIGMA**2 + np.diag(1 / width**2)
        move = np.linalg.solve(normal, (slopes.T @ (trust * off)) / SIGMA - (x - prior) / width**2)
        x = x + np.clip(move, -0.3, 0.3)
    return {**start, **dict(zip(names, np.exp(x).tolist(), strict=True))}


def pooled(fits: Iterable[Values]) -> Values:
    """Geometric means."""
    rows = list(fits)
    return {n: float(np.exp(np.mean([np.log(row[n]) for row in rows]))) for n in PRIOR}


def errors(runs: Sequence[TimedRun], values: Values) -> Floats:
    """Predicted over measured, less one."""
    return np.array([predicted(run, values) / run.measured_s - 1 for run in runs])


class Study:
    """All fits of one set of runs."""

    def __init__(self, runs: Sequence[TimedRun]) -> None:
        self.runs = [run for run in runs if not run.unlike]
        self.start = {name: value for name, (value, _) in PRIOR.items()}
        self.gpus = sorted({run.gpu.id for run in self.runs}, key=self._sources, reverse=True)
        self.fits: dict[str, Values] = {}
        for gpu in self.gpus:  # the first has both kinds of run and tells the overhead
            self.fits[gpu] = self.fitted(self.on(gpu))

    def on(self, gpu: str) -> list[TimedRun]:
        """The runs on one GPU."""
        return [run for run in self.runs if run.gpu.id == gpu]

    def tuned(self, gpu: str) -> list[TimedRun]:
        """The fine-tuning runs on one GPU."""
        return [run for run in self.on(gpu) if run.source != PRETRAINING]

    def fitted(self, runs: Sequence[TimedRun]) -> Values:
        """A fit; only runs of both kinds on one GPU tell the overhead of one."""
        kinds = {run.source == PRETRAINING for run in runs}
        if len(kinds) == 2:
            return fit(runs, self.start)
        known = next(iter(self.fits.values()), self.start)
        start = {**self.start, "overhead": known["overhead"]}
        if kinds == {False}:
            return fit(runs, start, fixed=("overhead", "old_attention"))
        return fit(runs, start, fixed=set(PRIOR) - set(TOLD_BY_PRETRAINING))

    def left_out(self, gpu: str) -> Floats:
        """Errors of fine-tuning runs, each by a fit without its method or model."""
        tuned = self.tuned(gpu)
        found = np.zeros(len(tuned))
        for group in {run.group for run in tuned}:
            values = self.fitted([run for run in self.on(gpu) if run.group != group])
            at = [i for i, run in enumerate(tuned) if run.group == group]
            found[at] = errors([tuned[i] for i in at], values)
        return found

    def across(self, gpu: str) -> Values:
        """Constants of the other GPUs, pooled; one GPU in two sizes of memory is one."""
        kind = gpu.partition("-")[0]
        others = [fits for name, fits in self.fits.items() if name.partition("-")[0] != kind]
        return {**pooled(others), "overhead": self.fits[gpu]["overhead"]}

    def without_source(self, gpu: str, source: str) -> Floats | None:
        """Errors of the runs of a source by a fit on the others of this GPU; None without."""
        rest = [run for run in self.on(gpu) if run.source != source]
        if not rest:
            return None
        old = all(run.source == PRETRAINING for run in rest)
        fixed = set(PRIOR) - set(TOLD_BY_PRETRAINING) if old else set(NUISANCE)
        values = fit(rest, self.start, fixed)
        return errors([run for run in self.on(gpu) if run.source == source], values)

    def _sources(self, gpu: str) -> int:
        return len({run.source for run in self.on(gpu)})


def interval(found: Sequence[Floats]) -> tuple[float, float]:
    """Factors around a prediction that hold nine in ten measured times, each part weighing one."""
    ratios = np.concatenate([1 / (1 + e) for e in found])
    weights = np.concatenate([np.full(len(e), 1 / len(e)) for e in found])
    order = np.argsort(ratios)
    share = np.cumsum(weights[order]) / weights.sum()
    low = ratios[order][np.searchsorted(share, 0.05)]
    high = ratios[order][np.searchsorted(share, 0.95)]
    return float(low), float(high)


def next_interval(found: Mapping[str, Floats]) -> tuple[float, float]:
    """Factors for a GPU that is none of these: spread between kinds of GPU, and within."""
    kinds: dict[str, list[Floats]] = {}
    for gpu, e in found.items():
        kinds.setdefault(gpu.partition("-")[0], []).append(-np.log1p(e))
    parts = [np.concatenate(e) for e in kinds.values()]
    between = np.var([e.mean() for e in parts], ddof=1) * (1 + 1 / len(parts))
    within = np.mean([e.var() for e in parts])
    reach = STUDENT[len(parts) - 1] * float(np.sqrt(between + within))
    return float(np.exp(-reach)), float(np.exp(reach))


def told(name: str, found: Floats | None) -> str:
    """A line about errors."""
    if found is None or not len(found):
        return f"  {name:28} no runs"
    size = np.abs(found)
    return (
        f"  {name:28} MAPE {size.mean():6.1%}  median {np.median(size):6.1%}  "
        f"bias {np.median(found):+6.1%}  worst {found[size.argmax()]:+6.1%}  n {len(found)}"
    )


def report(study: Study, runs: Sequence[TimedRun]) -> None:
    """Print what was found."""
    for gpu in study.gpus:
        tuned, rates = study.tuned(gpu), study.fits[gpu]
        print(gpu, {name: float(f"{value:.3g}") for name, value in rates.items()})
        print(told("all runs, fitted", errors(study.on(gpu), rates)))
        print(told("fine-tuning, fitted", errors(tuned, rates)))
        print(told("fine-tuning, left out", study.left_out(gpu)))
        print(told("fine-tuning, spec", errors(tuned, study.across(gpu))))
        print(told("all runs, spec", errors(study.on(gpu), study.across(gpu))))
        for source in sorted({run.source for run in study.on(gpu)}):
            print(told(f"without {source}", study.without_source(gpu, source)))
        for run in runs:
            if run.gpu.id == gpu and run.source != PRETRAINING:
                print(_line(run, rates, study.across(gpu)))


def _line(run: TimedRun, fitted: Values, spec: Values) -> str:
    constants = {name: value for name, value in fitted.items() if name not in NUISANCE}
    rates = dataclasses.replace(bundled(run.gpu.id), **constants)
    parts = step_parts(run.uses, run.training, run.gpu, rates)
    ours, other = parts.step_s, predicted(run, spec)
    return (
        f"    {run.name:58} {run.measured_s:8.4f} s  fitted {ours:8.4f} "
        f"({ours / run.measured_s - 1:+.1%})  spec {other:8.4f} "
        f"({other / run.measured_s - 1:+.1%})  {parts.bound}{'  *' if run.unlike else ''}"
    )


def lines(study: Study) -> list[dict[str, str]]:
    """The lines of the catalog."""
    tuned = [gpu for gpu in study.gpus if study.tuned(gpu)]
    crossed = {
        source: e
        for gpu in tuned
        for source in sorted({run.source for run in study.on(gpu)})
        if (e := study.without_source(gpu, source)) is not None
    }
    new = [e for source, e in crossed.items() if source != PRETRAINING]
    near = interval([*map(study.left_out, tuned), *new])
    far = next_interval({g: errors(study.on(g), study.across(g)) for g in study.gpus})
    rows = []
    for gpu in sorted(study.gpus):
        own = interval([errors(study.on(gpu), study.fits[gpu]), *crossed.values()])
        rows.append(_row(gpu, study.fits[gpu], near if gpu in tuned else own, study.on(gpu)))
    return [*rows, _row(DEFAULT, pooled(study.fits.values()), far, study.runs)]


def _row(
    gpu: str, values: Values, factors: tuple[float, float], runs: Sequence[TimedRun]
) -> dict[str, str]:
    numbers = {n: f"{v:.3g}" for n, v in values.items() if n not in NUISANCE}
    return {
        "gpu_id": gpu,
        **numbers,
        "dequantize_share": str(DEQUANTIZE_SHARE),
        "low": f"{factors[0]:.3g}",
        "high": f"{factors[1]:.3g}",
        "runs": str(len(runs)),
        "source": ";".join(sorted({run.source.replace("_", "-") for run in runs})),
    }


def main() -> None:
    """Fit, print, and write on demand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    runs = timed_runs(options.measurements)
    study = Study(runs)
    report(study, runs)
    rows = lines(study)
    print(*rows, sep="\n")
    if options.write:
        with catalog_path("gpu_rates.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
