"""``peftadvisor recommend``: which method, with which settings, where."""

from __future__ import annotations

from typing import Any

import click

from peftadvisor.cli import asking, options
from peftadvisor.cli.output import check_writable, emit, progress


@click.command("recommend")
@options.where
@asking.job
@asking.data
@options.training
@click.option(
    "--effective-batch-size",
    **options.COUNT,
    default="16",
    show_default=True,
    help="Samples per optimizer step, over all GPUs.",
)
@click.option(
    "--methods",
    metavar="A,B|all",
    help="Only these methods, or every one there is.  [default: the twelve in common use]",
)
@click.option(
    "--top",
    **options.COUNT,
    default="6",
    show_default=True,
    help="How many of the methods that fit to work out in full.",
)
@asking.needs
@asking.fixed
@options.risk
@options.limits
@options.output
def command(fmt: str, out: str | None, **values: Any) -> None:
    """Say which methods fit, best first, with settings, evidence, time and cost.

    Without --gpu, every GPU that has a price is a candidate.
    """
    from peftadvisor import advisor

    check_writable(out)
    with progress(f"Trying the methods on {values['model']}") as say:
        recommendation = advisor.recommend(asking.question(values, say), say)
    emit(recommendation, fmt, out)
