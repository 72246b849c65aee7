"""Hold simulated runs against published ones on an L40S; print a table over batch lengths.

    python benchmarks/accuracy.py [--lengths 640,672,704,768] [--readme]

With ``--readme`` the table goes into the README, between its accuracy marks.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from peftadvisor.cuda.allocator import replay
from peftadvisor.data.measured_runs import (
    L40S_LONGEST_BATCH_TOKENS,
    LEFT_ON_CPU_BYTES,
    MeasuredRun,
    l40s_runs,
)
from peftadvisor.data.models import find_model
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import prepare, trace_run
from peftadvisor.simulator.trace import replay_events
from peftadvisor.specs import TrainingSpec
from peftadvisor.units import GIB

README = Path(__file__).resolve().parent.parent / "README.md"


def reserved_bytes(run: MeasuredRun, lengths: list[int]) -> list[int]:
    """Replayed reserved peak of one run at each length, padded."""
    training = TrainingSpec(micro_batch_size=run.micro_batch_size, padded=True, max_grad_norm=0.0)
    prepared = prepare(find_model(run.model), run.method, training)
    traces = (
        trace_run(prepared, dataclasses.replace(training, seq_len=n), Device((8, 9)))
        for n in lengths
    )
    elsewhere = LEFT_ON_CPU_BYTES.get(run.method.name, 0)
    return [replay(*replay_events(trace)).reserved_peak_bytes - elsewhere for trace in traces]


def table(lengths: list[int]) -> Iterator[str]:
    """Markdown lines: a row a run, then mean and largest absolute error of each length."""
    yield "| run | measured GiB | " + " | ".join(f"at {n} tokens" for n in lengths) + " |"
    yield "|---|---|" + "---|" * len(lengths)
    errors: list[list[float]] = []
    for run in l40s_runs():
        ours = reserved_bytes(run, lengths)
        errors.append([n / run.peak_reserved_bytes - 1 for n in ours])
        cells = [f"{n / GIB:.2f} ({e:+.1%})" for n, e in zip(ours, errors[-1], strict=True)]
        settings = ", ".join(f"{k} {_short(v)}" for k, v in run.method.settings if k != "alpha")
        name = f"{run.method.name} {settings}".strip()
        yield f"| {name} | {run.peak_reserved_bytes / GIB:.2f} | " + " | ".join(cells) + " |"
    columns = list(zip(*errors, strict=True))
    means = " | ".join(f"{sum(map(abs, c)) / len(c):.1%}" for c in columns)
    worst = " | ".join(f"{max(c, key=abs):+.1%}" for c in columns)
    yield f"| mean absolute error | | {means} |"
    yield f"| worst | | {worst} |"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(str(v).removesuffix("_proj").removesuffix("_layernorm") for v in value)
    return str(value)


def main() -> None:
    """Print the table, or put it into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", default=f"640,{L40S_LONGEST_BATCH_TOKENS},704,768")
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    lengths = [int(n) for n in options.lengths.split(",")]
    if not options.readme:
        for line in table(lengths):
            print(line, flush=True)
        return
    block = "\n".join(table([L40S_LONGEST_BATCH_TOKENS])) + "\n"
    marks = r"(<!-- accuracy -->\n).*?(<!-- /accuracy -->)"
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(marks, lambda m: m[1] + block + m[2], text, flags=re.DOTALL), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
