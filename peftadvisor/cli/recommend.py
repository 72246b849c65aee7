"""``peftadvisor recommend``: which method, with which settings."""

from __future__ import annotations

from typing import Any

import click

from peftadvisor.cli import inputs, options
from peftadvisor.cli.output import check_writable, emit, progress


@click.command("recommend")
@options.what
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
@options.job
@options.limits
@options.output
def command(fmt: str, out: str | None, **values: Any) -> None:
    """Say which methods fit, best first, with settings, time and cost."""
    from peftadvisor import advisor
    from peftadvisor.advisor import places
    from peftadvisor.advisor.question import Question

    check_writable(out)
    methods = inputs.method_names(values["methods"])
    gpu = inputs.gpu_spec(values["gpu"], values["gpu_memory"])
    model = inputs.model_spec(values["model"])
    question = Question(
        model=model,
        places=places.named(gpu, values["gpus"], values["sharding"]),
        expandable_segments=values["expandable_segments"],
        training=inputs.training_spec(values, model),
        budget=inputs.budget(values),
        effective_batch_size=values["effective_batch_size"],
        methods=methods,
        top=values["top"],
    )
    with progress(f"Trying the methods on {model.id}") as say:
        recommendation = advisor.recommend(question, say)
    emit(recommendation, fmt, out)
