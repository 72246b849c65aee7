"""``peftadvisor recommend``: which method, with which settings, where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from peftadvisor.cli import asking, completing, numbers, options
from peftadvisor.cli.output import check_writable, emit, note, progress, write
from peftadvisor.errors import UsageError

if TYPE_CHECKING:
    from peftadvisor.advisor.question import Recommendation


@click.command("recommend")
@options.where
@asking.job
@asking.data
@options.training
@click.option(
    "--effective-batch-size",
    **numbers.COUNT,
    default="16",
    show_default=True,
    help="Samples per optimizer step, over all GPUs.",
)
@click.option(
    "--methods",
    metavar="A,B|all",
    shell_complete=completing.several_methods,
    help="Only these methods, or every one there is.  [default: the twelve in common use]",
)
@click.option(
    "--top",
    **numbers.COUNT,
    default="6",
    show_default=True,
    help="How many of the methods that fit to work out in full.",
)
@asking.needs
@asking.fixed
@options.risk
@options.limits
@click.option(
    "--export",
    type=click.Choice(["peft", "axolotl", "llamafactory", "torchtune", "trl"]),
    help="Write what trains so, a script or a config, instead of the answer.",
)
@click.option(
    "--pick",
    type=click.Choice(["safest", "cheapest", "smallest"]),
    default="safest",
    show_default=True,
    help="Which answer to export.",
)
@options.output
def command(fmt: str, out: str | None, export: str | None, pick: str, **values: Any) -> None:
    """Say which methods fit, best first, with settings, evidence, time and cost.

    Without --gpu, every GPU that has a price is a candidate.
    """
    from peftadvisor import advisor

    check_writable(out)
    with progress(f"Trying the methods on {values['model']}") as say:
        recommendation = advisor.recommend(asking.question(values, say), say)
    if export is None:
        emit(recommendation, fmt, out)
        return
    write(_exported(recommendation, export, pick), out)


def _exported(recommendation: Recommendation, export: str, role: str) -> str:
    """The configuration of one of the named answers; what it is goes to stderr."""
    from peftadvisor.integrations.exports import export as written

    if not recommendation.picks:
        raise UsageError(f"nothing fits, so there is nothing to export; {_way_out(recommendation)}")
    picks = {pick.role: pick for pick in recommendation.picks}
    pick = picks.get(role, recommendation.picks[0])  # type: ignore[call-overload]
    if pick.role != role:
        note(f"the {role} answer is the {pick.role} one")
    choice = pick.choice
    note(f"{choice.estimate.run.method.name} on {choice.estimate.run.gpu.id}, for {export}")
    return written(choice.estimate, choice.advised, recommendation.question.job, export)


def _way_out(recommendation: Recommendation) -> str:
    return "; ".join(recommendation.ways_out) or "see the answer without --export"
