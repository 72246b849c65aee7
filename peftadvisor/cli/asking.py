"""The options of ``recommend`` beside those of a run, and the question that they ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import click

from peftadvisor.cli import inputs, numbers, options
from peftadvisor.errors import UsageError
from peftadvisor.integrations import lookup
from peftadvisor.specs import Budget, Checkpointing, Job, ModelSpec, Optimizer, Task, TrainingSpec
from peftadvisor.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftadvisor.advisor.places import Place
    from peftadvisor.advisor.question import Needs, Question
    from peftadvisor.cost_model.batching import Batching

Values = Mapping[str, Any]

job = options.bundle(
    click.option(
        "--task", type=click.Choice(get_args(Task)), help="What is to be learned, for the evidence."
    ),
    click.option("--examples", **numbers.COUNT, help="How many there are to learn from."),
    click.option("--epochs", **numbers.AMOUNT, help="Passes over them.  [default: 1]"),
    click.option("--steps", **numbers.COUNT, help="Optimizer steps, in place of epochs."),
    click.option("--tokens", **numbers.TOKENS, help="Or the size of the job in tokens: 10M."),
    click.option("--test-examples", **numbers.COUNT, help="Size of your test set, for the pilot."),
)

data = options.bundle(
    click.option("--dataset", metavar="FILE", help="JSONL of your examples, to count lengths."),
    click.option("--tokenizer", metavar="PATH", help="Its folder, or a tokenizer.json."),
    click.option("--text-field", metavar="NAME", help="Key of a text in the data."),
    click.option("--target-field", metavar="NAME", help="Key of what is to be written."),
)

needs = options.bundle(
    click.option("--mergeable", is_flag=True, help="It can be merged into the weights."),
    click.option("--quantized-base", is_flag=True, help="It trains on a quantized base."),
    click.option("--no-inference-overhead", is_flag=True, help="It costs nothing at inference."),
    click.option("--max-stored", metavar="SIZE", help="What one adapter may store: 50MiB."),
    click.option("--max-memory", metavar="SIZE", help="What may be taken on each GPU: 20GiB."),
)

fixed = options.bundle(
    click.option(
        "--optimizer",
        type=click.Choice(get_args(Optimizer)),
        help="Take this one.  [default: adamw, or a smaller one where that does not fit]",
    ),
    click.option(
        "--gradient-checkpointing",
        type=click.Choice(get_args(Checkpointing)),
        help="Take this.  [default: whichever is faster and fits]",
    ),
    click.option("--rank", **numbers.COUNT, help="Take this rank.  [default: by rule]"),
    click.option("--alpha", **numbers.AMOUNT, help="Take this scale.  [default: by rule]"),
)


def question(values: Values, say: Callable[[str], None]) -> Question:
    """The question that the options ask; a data set is read for its lengths.

    Raises:
        UsageError: any of them is wrong, or does not go with another.
    """
    from peftadvisor.advisor.question import Question

    model = lookup.model_spec(values["model"])
    training = inputs.training_spec(values, model)
    batches = _batching(values, model, training, say)
    if batches is not None:
        training = _of_data(values, training, batches)
    asked = _job(values, batches, training)
    levers: dict[str, Any] = {
        name: (values[option],)
        for name, option in (
            ("optimizers", "optimizer"),
            ("checkpointing", "gradient_checkpointing"),
        )
        if values[option] is not None
    }
    return Question(
        model=model,
        places=_places(values),
        expandable_segments=values["expandable_segments"],
        training=training,
        budget=_budget(values, asked),
        job=asked,
        needs=_needs(values),
        settings=tuple(
            (name, values[name]) for name in ("alpha", "rank") if values[name] is not None
        ),
        effective_batch_size=values["effective_batch_size"],
        methods=inputs.method_names(values["methods"]),
        batching=batches,
        test_examples=values["test_examples"],
        top=values["top"],
        **levers,
    )


def _places(values: Values) -> tuple[Place, ...]:
    from peftadvisor.advisor import places

    if values["gpu"] is not None:
        gpu = lookup.gpu_spec(values["gpu"], values["gpu_memory"])
        return places.named(gpu, values["gpus"], values["sharding"])
    if values["gpu_memory"] is not None:
        raise UsageError("--gpu-memory is the memory of a named GPU; add --gpu NAME")
    found = places.for_hire(values["max_usd_per_hour"])
    return tuple(place for place in found if values["gpus"] in (1, place.count))


def _batching(
    values: Values, model: ModelSpec, training: TrainingSpec, say: Callable[[str], None]
) -> Batching | None:
    if values["dataset"] is None:
        if values["tokenizer"] is not None:
            raise UsageError("--tokenizer counts the tokens of a data set; add --dataset FILE")
        return None
    from peftadvisor.cost_model.batching import batching
    from peftadvisor.data.models import max_positions
    from peftadvisor.integrations.datasets import DatasetFile, read_lengths

    file = DatasetFile(
        path=values["dataset"],
        tokenizer=values["tokenizer"],
        text_field=values["text_field"],
        target_field=values["target_field"],
        encoder_decoder=bool(model.config.get("is_encoder_decoder")),
    )
    lengths = read_lengths(file, say)
    limit = values["seq_len"] or max_positions(model) or lengths.rows.longest
    return batching(lengths, dataclasses.replace(training, seq_len=limit))


def _of_data(values: Values, training: TrainingSpec, batches: Batching) -> TrainingSpec:
    """As long as the longest example; padded, unless rows are to be packed."""
    packed = click.get_current_context().get_parameter_source("padded")
    stated = packed is not None and packed.name == "COMMANDLINE"
    if stated and not values["padded"]:
        return dataclasses.replace(training, seq_len=batches.seq_len)
    longest = min(batches.seq_len, -(-batches.rows.longest // 16) * 16)
    return dataclasses.replace(training, seq_len=longest, padded=True)


def _job(values: Values, batches: Batching | None, training: TrainingSpec) -> Job:
    """The job; rows that are packed are full."""
    said = {name: values[name] for name in ("task", "epochs", "steps")}
    if batches is None:
        known = values["examples"] is not None and not training.padded
        return Job(
            examples=values["examples"],
            tokens_per_example=training.seq_len if known else None,
            **said,
        )
    if values["examples"] is not None:
        raise UsageError("--examples and --dataset both say how many there are; keep one of them")
    from peftadvisor.cost_model.batching import job_of

    return job_of(batches.kept, **said)


def _budget(values: Values, asked: Job) -> Budget:
    known = values["tokens"] is not None or asked.examples is not None or asked.steps is not None
    for name in ("max_hours", "max_usd"):
        if values[name] is not None and not known:
            raise UsageError(
                f"--{name.replace('_', '-')} limits the whole job; give its size with --tokens, "
                "--examples, --steps or --dataset"
            )
    memory = values["max_memory"]
    return Budget(
        total_tokens=values["tokens"],
        max_hours=values["max_hours"],
        max_usd=values["max_usd"],
        max_memory_bytes=None if memory is None else parse_bytes(memory),
        max_oom_risk=values["max_risk"],
    )


def _needs(values: Values) -> Needs:
    from peftadvisor.advisor.question import Needs

    stored = values["max_stored"]
    return Needs(
        mergeable=values["mergeable"],
        quantized_base=values["quantized_base"],
        no_inference_overhead=values["no_inference_overhead"],
        max_stored_bytes=None if stored is None else parse_bytes(stored),
    )
