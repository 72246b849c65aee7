"""The tables and the figure of ``accuracy.py``: functions of predictions and published rows."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from peftadvisor.cost_model.accuracy import Compared, Outcome, Quantity, accuracy, screening
from peftadvisor.cost_model.uncertainty import Scores, alike, kind_of, scores_of
from peftadvisor.cuda.outside import context_bytes
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.measurements import Measurement
from peftadvisor.data.memory_errors import Kind, MemoryMiss
from peftadvisor.integrations.published import Published, as_run
from peftadvisor.integrations.published_limits import RAN_OUT
from peftadvisor.integrations.validation import validate
from peftadvisor.units import GIB

NAMES: Mapping[Quantity, str] = {
    "allocated": "allocated peak",
    "reserved": "reserved peak",
    "device": "device peak",
    "step": "step time",
}
LEVELS = tuple(round(0.05 * n, 2) for n in range(1, 20))


@dataclass(frozen=True)
class Study:
    """All rows with their predictions."""

    rows: Mapping[str, Measurement]
    outcomes: tuple[Outcome, ...]

    @property
    def used(self) -> list[Outcome]:
        """Rows that were compared."""
        return [o for o in self.outcomes if o.used]

    @cached_property
    def misses(self) -> list[MemoryMiss]:
        """Device memory of each row; where reserved memory was measured, the context is added."""
        return [miss for o in self.used if (miss := self._miss(o))]

    @cached_property
    def other_scores(self) -> Mapping[tuple[str, Kind], Scores]:
        """Per source and kind of run the scores of the other sources."""
        keys = {(miss.source, miss.kind) for miss in self.misses}
        return {
            (source, kind): scores_of(alike((m for m in self.misses if m.source != source), kind))
            for source, kind in keys
        }

    def kind(self, row_id: str) -> Kind:
        """The kind of a row's run."""
        described = as_run(self.rows[row_id])
        assert isinstance(described, Published)
        return kind_of(described.run.training.loss, described.run.gpus)

    def _miss(self, outcome: Outcome) -> MemoryMiss | None:
        found, extra = outcome.compared, 0
        if "device" in found:
            one = found["device"]
        elif "reserved" in found:
            one, extra = found["reserved"], context_bytes(find_gpu(outcome.gpu)).typical
        else:
            return None
        return MemoryMiss(
            row_id=outcome.row_id,
            source=outcome.source,
            kind=self.kind(outcome.row_id),
            measured_bytes=int(one.measured) + extra,
            predicted_bytes=int(one.predicted) + extra,
        )

    def compared(self, quantity: Quantity, gpus: int | None = None) -> list[Compared]:
        """Rows with that quantity on so many GPUs; intervals of memory by other sources' scores."""
        found = []
        for o in self.used:
            if quantity not in o.compared or gpus not in (None, self.rows[o.row_id].n_gpus or 1):
                continue
            one = o.compared[quantity]
            if quantity != "step":
                low, high = self.other_scores[o.source, self.kind(o.row_id)].factors()
                one = Compared(
                    measured=one.measured,
                    low=low * one.predicted,
                    predicted=one.predicted,
                    high=high * one.predicted,
                )
            found.append(one)
        return found

    def summary(self) -> list[str]:
        """A row a quantity: Markdown."""
        lines = [
            "| | rows | mean abs. error | median | 95 % | worst under | worst over |",
            "|---|---|---|---|---|---|---|",
        ]
        for gpus, where in ((1, "one GPU"), (2, "two GPUs, sharded")):
            for quantity, name in NAMES.items():
                found = self.compared(quantity, gpus)
                if found:
                    lines.append(_errors(f"{name}, {where}", found))
        return lines

    def page(self, beside: Iterable[str] = ()) -> list[str]:
        """The whole of docs/accuracy.md, with what others predict ``beside``."""
        return [
            *_HEAD,
            "",
            *self.summary(),
            "",
            *self._represented(),
            *self._groups(),
            *beside,
            *self._memory_fit(),
            *self._intervals(),
            *self._oom(),
            *self._worst(),
            *self._all_rows(),
        ]

    def _represented(self) -> Iterator[str]:
        told = [r for r in self.rows.values() if r.status == "ok"]
        single = [r for r in told if r.n_gpus in (None, 1)]
        by = {o.row_id: o for o in self.outcomes}
        shares = [sum(by[r.row_id].used for r in part) for part in (single, told)]
        yield "## Rows"
        yield ""
        yield (
            f"Of {len(single)} rows on one GPU with a figure, {shares[0]} are predicted "
            f"({shares[0] / len(single):.0%}); of all {len(told)} rows with a figure {shares[1]} "
            f"({shares[1] / len(told):.0%}). The others are left out because of:"
        )
        yield ""
        reasons = Counter(o.reason for o in self.outcomes if not o.used)
        yield from (f"- {reason}: {n} rows" for reason, n in reasons.most_common())
        yield ""

    def _groups(self) -> Iterator[str]:
        yield "## By source, model, method and GPU"
        yield ""
        yield "Mean absolute error, and the number of rows."
        yield ""
        yield "| | " + " | ".join(NAMES.values()) + " |"
        yield "|---|" + "---|" * len(NAMES)
        for by in ("source", "model", "method", "gpu"):
            names = sorted({self._named(o, by) for o in self.used})
            for name in names:
                group = [o for o in self.used if self._named(o, by) == name]
                cells = (_mape([o.compared[q] for o in group if q in o.compared]) for q in NAMES)
                yield f"| {name} | " + " | ".join(cells) + " |"
        yield ""

    def _named(self, outcome: Outcome, by: str) -> str:
        if by == "model":
            return self.rows[outcome.row_id].model.rpartition("/")[2]
        return str(getattr(outcome, by))

    def _memory_fit(self) -> Iterator[str]:
        plain, fitted = self._residuals()
        yield "## What the physics earns and what a fit would add"
        yield ""
        yield (
            "Nothing in the memory model is fitted on these rows. A ridge regression of "
            "log(measured / predicted) device memory on method and model, made without the row's "
            f"source, turns a mean absolute error of {plain:.1%} into {fitted:.1%}: with one other "
            "source there is nothing to learn, so none ships. Constants of step time are fitted "
            "per GPU; [decision 12](decisions/0012-step-time-kernel-by-kernel.md) has their errors "
            "with the row's source left out."
        )
        yield ""

    def _residuals(self) -> tuple[float, float]:
        """Mean absolute error of device memory, plain and by a regression without the source."""
        from sklearn.linear_model import Ridge

        labels = [(m.source, *self._labels(m)) for m in self.misses]
        names = sorted({x for row in labels for x in row[1:]})
        x = np.array([[1.0, *(n in row for n in names)] for row in labels])
        y = np.array([math.log(m.measured_bytes / m.predicted_bytes) for m in self.misses])
        sources = np.array([row[0] for row in labels])
        guess = np.zeros_like(y)
        for source in set(sources):
            rest = sources != source
            if rest.any():
                fit = Ridge(alpha=10.0, fit_intercept=False).fit(x[rest], y[rest])
                guess[~rest] = fit.predict(x[~rest])
        return float(np.abs(np.expm1(-y)).mean()), float(np.abs(np.expm1(guess - y)).mean())

    def _labels(self, miss: MemoryMiss) -> tuple[str, str]:
        row = self.rows[miss.row_id]
        return f"method {row.method}", f"model {row.model}"

    def _intervals(self) -> Iterator[str]:
        yield "## Intervals"
        yield ""
        yield (
            "The share of rows whose measured device memory lies below what the scores of the "
            "other sources give as a quantile, beside that quantile. A straight line would be "
            "perfect; two sources cannot tell a third, and the curve shows it."
        )
        yield ""
        yield "![Reliability](img/reliability.svg)"
        yield ""
        yield "| quantile | " + " | ".join(f"{p:.0%}" for p in LEVELS) + " |"
        yield "|---|" + "---|" * len(LEVELS)
        yield "| rows below | " + " | ".join(f"{s:.0%}" for s in self.reliability()) + " |"
        yield ""
        for quantity, name in NAMES.items():
            found = self.compared(quantity)
            if found:
                yield f"- 90 % interval of {name}: holds {accuracy(found).coverage:.0%} of rows"
        yield (
            "- 90 % interval of device memory by the scores of all other models, of the same "
            f"source or not: holds {self._model_coverage():.0%} of rows"
        )
        yield ""

    def _model_coverage(self) -> float:
        """Share of rows inside the interval by the scores of other models."""
        inside = 0
        for miss in self.misses:
            model = self.rows[miss.row_id].model
            rest = (m for m in self.misses if self.rows[m.row_id].model != model)
            low, high = _factors(tuple(alike(rest, miss.kind)))
            inside += low <= miss.measured_bytes / miss.predicted_bytes <= high
        return inside / len(self.misses)

    def reliability(self) -> list[float]:
        """Share of rows below each quantile of the other sources' scores."""
        below = []
        for level in LEVELS:
            limits = {key: scores.quantile(level) for key, scores in self.other_scores.items()}
            inside = [
                math.log(m.measured_bytes / m.predicted_bytes) <= limits[m.source, m.kind]
                for m in self.misses
            ]
            below.append(sum(inside) / len(inside))
        return below

    def reliability_figure(self) -> str:
        """The curve beside the diagonal, as SVG."""
        size, edge = 320, 40
        points = " ".join(
            f"{edge + p * size:.0f},{edge + (1 - s) * size:.0f}"
            for p, s in zip(LEVELS, self.reliability(), strict=True)
        )
        far, mid = edge + size, edge + size // 2
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {far + edge} {far + edge}" '
            'font-family="sans-serif" font-size="13" fill="#555">\n'
            f'<rect x="{edge}" y="{edge}" width="{size}" height="{size}" fill="none" '
            'stroke="#999"/>\n'
            f'<path d="M{edge} {far}L{far} {edge}" stroke="#999" stroke-dasharray="4"/>\n'
            f'<polyline points="{points}" fill="none" stroke="#2a6fdb" stroke-width="2"/>\n'
            f'<text x="{mid}" y="{far + 28}" text-anchor="middle">predicted quantile</text>\n'
            f'<text x="14" y="{mid}" text-anchor="middle" transform="rotate(-90 14 {mid})">'
            "share of rows below</text>\n</svg>\n"
        )

    def _oom(self) -> Iterator[str]:
        found = screening(self.used)
        verdicts = Counter(o.verdict for o in self.used if o.ran_out)
        said = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
        yield "## Running out of memory"
        yield ""
        yield (
            f"Of {found.oom_rows} rows that ran out, {found.false_safe} were said to fit "
            f"({said}); of {found.ran_rows} that ran, {found.false_alarms} were said not to. "
            "Verdicts are those that ship, by the scores of all sources."
        )
        yield ""

    def _worst(self) -> Iterator[str]:
        yield "## Misses over 5 %"
        yield ""
        yield "| row | model | method | | measured | predicted | |"
        yield "|---|---|---|---|---|---|---|"
        found = [(o, q, c) for o in self.used for q, c in o.compared.items() if abs(c.error) > 0.05]
        for o, quantity, one in sorted(found, key=lambda each: -abs(each[2].error)):
            yield _line(o, self.rows[o.row_id], quantity, one)
        yield ""
        yield from _EXPLAINED
        yield ""

    def _all_rows(self) -> Iterator[str]:
        yield "## Every row"
        yield ""
        yield "| row | model | method | | measured | predicted | |"
        yield "|---|---|---|---|---|---|---|"
        for o in self.used:
            for quantity, one in o.compared.items():
                yield _line(o, self.rows[o.row_id], quantity, one)
        for o in self.used:
            row = self.rows[o.row_id]
            if row.status in RAN_OUT:
                model = row.model.rpartition("/")[2]
                yield f"| {o.row_id} | {model} | {o.method} | verdict | ran out | {o.verdict} | |"


def study_of(rows: Sequence[Measurement]) -> Study:
    """Predict all rows."""
    done = validate(rows, lambda text: print(text, file=sys.stderr), keep_rows=True)
    return Study({row.row_id: row for row in rows}, done.rows)


@cache
def _factors(misses: tuple[MemoryMiss, ...]) -> tuple[float, float]:
    return scores_of(misses).factors()


def _errors(name: str, found: Sequence[Compared]) -> str:
    a = accuracy(found)
    return (
        f"| {name} | {a.rows} | {a.mape:.1%} | {a.median:.1%} | {a.p95:.1%} | "
        f"{a.worst_under:+.1%} | {a.worst_over:+.1%} |"
    )


def _mape(found: Sequence[Compared]) -> str:
    return f"{accuracy(found).mape:.1%} ({len(found)})" if found else ""


def _line(outcome: Outcome, row: Measurement, quantity: Quantity, one: Compared) -> str:
    shown = (
        (f"{one.measured:.3g} s", f"{one.predicted:.3g} s")
        if quantity == "step"
        else (f"{one.measured / GIB:.2f} GiB", f"{one.predicted / GIB:.2f} GiB")
    )
    model = row.model.rpartition("/")[2]
    cells = (outcome.row_id, model, outcome.method, quantity, *shown, f"{one.error:+.1%}")
    return "| " + " | ".join(cells) + " |"


_HEAD = """\
# Accuracy

Made by `make accuracy MEASUREMENTS=FILE.csv` from rows of fidelity A: published runs whose settings
and way of measuring are known from code at that commit. Memory is predicted by physics alone. Step
times here are by the constants that ship, which were fitted on the one-GPU rows where the GPU is
one of theirs; with the row's source left out they miss by 4.3 % on an A100 and 7.7 % on an L40S
(decision 12). Two things about the memory rows are inferred from them: the longest batch of the
L40S runs, 672 tokens, and that fused losses are given fp32 under autocast where a model leaves its
logits in 16 bits (santacoder's QLoRA rows with fused kernels; not read in those kernels' code).
Runs on two GPUs are FSDP with full shard (decision 14).
""".splitlines()

_EXPLAINED = """\
What is known of these:

- **Device memory on the A100**: allocated memory is exact to 0.1 %, so what is missing is outside
  the tensors. PowerLM ran with flash-attn 2.6.3 and needs 0.4 to 0.8 GiB beside what the allocator
  reserves, all other rows, with flash-attn 2.7.3, about 1.7 GiB: a context that depends on what is
  loaded. Runs with fused kernels needed as much as those without, although they hold less. Experts
  called one by one (Mixtral) get uneven shares of tokens and so fragment more than even shares do.
- **Two GPUs**: FSDP gathers on a stream of its own, whose cached blocks others cannot use, so more
  is reserved than is replayed; small micro-batches with adapters wait for collectives per adapter.
- **lora-fa** on the L40S: the published peak is that of LoRA with both factors trained.
- **boft**, **lora-fa**, **oft** (time): buffers copied from the host, solves that the host waits
  for, many small launches inside one operator.
""".splitlines()
