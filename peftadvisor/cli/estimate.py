"""``peftadvisor estimate``: one run."""

from __future__ import annotations

from typing import Any

import click

from peftadvisor.cli import inputs, options
from peftadvisor.cli.output import check_writable, emit, progress

_STRICT_CODES = {"fits": 0, "oom": 3, "tight": 4}


@click.command("estimate")
@options.what
@options.method
@options.training
@options.one_run
@options.job
@click.option("--strict", is_flag=True, help="Exit 3 if it would not fit, 4 if the fit is tight.")
@options.output
def command(strict: bool, fmt: str, out: str | None, **values: Any) -> int:
    """Predict one run: memory by owner, FLOPs, time, cost, and whether it fits."""
    from peftadvisor import advisor

    check_writable(out)
    run, budget = inputs.run_spec(values), inputs.budget(values)
    with progress(f"Predicting {run.method.name} on {run.model.id}") as say:
        estimate = advisor.estimate(run, budget=budget, progress=say)
    emit(estimate, fmt, out)
    return _STRICT_CODES[estimate.verdict] if strict else 0
