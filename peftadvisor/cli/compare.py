"""``peftadvisor compare``: methods side by side."""

from __future__ import annotations

from typing import Any

import click

from peftadvisor.cli import completing, inputs, options
from peftadvisor.cli.output import check_writable, emit, progress


@click.command("compare")
@options.what
@click.option(
    "--methods",
    metavar="A,B|all",
    shell_complete=completing.several_methods,
    help="These methods, or every one there is.  [default: the twelve in common use]",
)
@options.training
@options.one_run
@options.job
@options.output
def command(fmt: str, out: str | None, **values: Any) -> None:
    """Set methods side by side: the same model, batch and GPU, each at its defaults.

    Those marked * are Pareto optimal: no other that fits is better in memory, time, money or
    evidence, and worse in none of them.
    """
    from peftadvisor import advisor
    from peftadvisor.advisor.question import ALL
    from peftadvisor.methods import COMMON, method_names

    check_writable(out)
    named = inputs.method_names(values["methods"])
    methods = method_names() if named == ALL else named or COMMON
    run = inputs.run_of(values, methods[0])
    with progress(f"Comparing {len(methods)} methods on {run.model.id}") as say:
        comparison = advisor.compare(run, methods, budget=inputs.budget(values), progress=say)
    emit(comparison, fmt, out)
