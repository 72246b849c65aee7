"""``peftadvisor report``: one page of an answer, to be passed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftadvisor.cli import asking, inputs, options
from peftadvisor.cli.output import check_writable, emit, note, progress
from peftadvisor.errors import UsageError

if TYPE_CHECKING:
    from peftadvisor.integrations.answers import Story
    from peftadvisor.simulator.obtain import Progress

_PAGES = {"html": "peftadvisor-report.html", "markdown": "peftadvisor-report.md"}
_OF_ONE_RUN = (
    "alpha",
    "batch_size",
    "dropout",
    "grad_accum",
    "gradient_checkpointing",
    "kbit_preparation",
    "loop",
    "loss",
    "optimizer",
    "quantization",
    "rank",
    "set_",
    "sweep",
    "target_modules",
    "transformers",
)
_OF_METHODS = frozenset(_OF_ONE_RUN) & {
    "alpha",
    "dropout",
    "rank",
    "set_",
    "sweep",
    "target_modules",
}
_UNASKED: Mapping[str, Any] = {
    **dict.fromkeys(
        ("dataset", "tokenizer", "text_field", "target_field", "task", "examples", "epochs")
        + ("steps", "test_examples", "max_hours", "max_usd", "max_memory", "max_stored")
        + ("max_usd_per_hour", "optimizer", "gradient_checkpointing", "rank", "alpha", "methods")
    ),
    **dict.fromkeys(("mergeable", "quantized_base", "no_inference_overhead"), False),
    "effective_batch_size": 16,
    "top": 12,
}
"""What ``recommend`` asks and this command does not: as where it is not said."""


@click.command("report")
@click.argument("file", metavar="[FILE.json]", required=False)
@options.optional_model
@click.option("--gpu", metavar="NAME", help="A GPU, or 'auto' for the one in here.")
@options.cards
@options.optional_method
@click.option("--methods", metavar="A,B|all", help="These side by side, in place of advice.")
@options.training
@options.one_run
@options.job
@click.option(
    "--sweep",
    type=click.Choice(["batch", "length"]),
    help="How far this can go, and nothing else.",
)
@click.option(
    "--format",
    "fmt",
    type=click.Choice([*_PAGES]),
    default="html",
    show_default=True,
    help="A page, or text for pull requests and model cards.",
)
@click.option("--figure", metavar="NAME", help="Write this figure alone, as SVG or PNG.")
@click.option(
    "--out",
    metavar="PATH",
    help="Where to.  [default: peftadvisor-report.html, .md or .svg here]",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    file: str | None,
    sweep: Any,
    fmt: str,
    figure: str | None,
    out: str | None,
    **values: Any,
) -> None:
    """Make one self-contained page of an answer: for a browser, a mail, a pull request.

    FILE.json is what recommend, compare, estimate, profile or validate wrote with --format json.
    Without it the answer is worked out: of one run with --method, of methods side by side with
    --methods, else which method to take. Files hold no recordings: what needs them (memory over
    the step, sweeps, the what-if) is in pages that are worked out.
    """
    given = _given(ctx)
    _check(file, given, values)
    path = out or (f"peftadvisor-{figure}.svg" if figure else _PAGES[fmt])
    check_writable(path)
    with progress("Making the report") as say:
        story = _read(file) if file else _made(values, sweep, say)
    if figure:
        from peftadvisor.report.picture import write_figure

        write_figure(story, figure, Path(path))
    else:
        emit(story, fmt, path)
    note(f"{path} is written")


def _given(ctx: click.Context) -> frozenset[str]:
    """The options that the user gave."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return frozenset(n for n, s in sources.items() if s is not None and s.name == "COMMANDLINE")


def _check(file: str | None, given: frozenset[str], values: Mapping[str, Any]) -> None:
    """Complain about options that do not go together.

    Raises:
        UsageError: which, and what to do.
    """
    if file is not None:
        _refuse(given - {"file", "fmt", "figure", "out"}, "the file says it all; leave it out")
        return
    if values["model"] is None:
        raise UsageError("pass FILE.json, or --model NAME to work an answer out")
    if values["method"] and values["methods"]:
        raise UsageError("--method and --methods are both given; keep one of them")
    if values["method"] is None and values["methods"] is None:
        _refuse(given & {*_OF_ONE_RUN}, "it is of one run; add --method NAME")
    elif values["methods"]:
        _refuse(given & _OF_METHODS, "it is of one method; use --method NAME")
    if values["gpu"] is None and (values["method"] or values["methods"]):
        raise UsageError("--gpu is missing; see: peftadvisor list gpus")


def _refuse(names: Iterable[str], why: str) -> None:
    for name in sorted(names):
        raise UsageError(f"--{name.strip('_').replace('_', '-')}: {why}")


def _read(file: str) -> Story:
    from peftadvisor.integrations.answers import Story, read_answer

    return Story(source=Path(file).name, answer=read_answer(Path(file)))


def _made(values: Mapping[str, Any], sweep: Any, say: Progress) -> Story:
    from peftadvisor.integrations import stories

    if values["method"]:
        return stories.story_of_run(inputs.run_spec(values), inputs.budget(values), say, sweep)
    if values["methods"] is None:
        asked = {**values, **_UNASKED}
        return stories.story_of_question(asking.question(asked, say), say)
    from peftadvisor.advisor.question import ALL
    from peftadvisor.methods import method_names

    named = inputs.method_names(values["methods"]) or ()
    methods = method_names() if named == ALL else named
    run = inputs.run_of(values, methods[0])
    return stories.story_of_methods(run, methods, inputs.budget(values), say)
