"""Option bundles that the commands share, as decorators; ``inputs`` turns their values to specs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, get_args

import click

from peftadvisor.cli import completing
from peftadvisor.cli.numbers import AMOUNT, COUNT, SHARE, TOKENS
from peftadvisor.specs import (
    Attention,
    Checkpointing,
    DType,
    KbitPreparation,
    Loop,
    Loss,
    Optimizer,
    Quantization,
    Sharding,
    Transformers,
)

Command = TypeVar("Command", bound=Callable[..., Any])


def bundle(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator out of several options, shown in ``--help`` in the order given."""

    def apply(command: Command) -> Command:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return apply


def _choice(literal: Any) -> click.Choice[str]:
    return click.Choice(get_args(literal))


_model = partial(
    click.option,
    "--model",
    metavar="NAME|PATH",
    shell_complete=completing.models,
    help="A bundled model, a local config.json (or its folder), or a Hub id to fetch.",
)
_method = partial(
    click.option,
    "--method",
    metavar="NAME",
    shell_complete=completing.methods,
    help="See: peftadvisor list methods.",
)
optional_model = _model()

_gpu_memory = click.option("--gpu-memory", metavar="SIZE", help="Its usable memory, such as 24GiB.")
_gpus = partial(click.option, "--gpus", **COUNT)
_sharding = partial(
    click.option,
    "--sharding",
    type=_choice(Sharding),
    show_default=True,
    help="What several GPUs divide: nothing (ddp), optimizer states (zero-1), also gradients "
    "(zero-2), also weights (zero-3, fsdp).",
)
_expandable_segments = click.option(
    "--expandable-segments",
    is_flag=True,
    help="Does PyTorch's allocator have expandable_segments:True (PYTORCH_ALLOC_CONF)?",
)

on_gpu = bundle(
    click.option(
        "--gpu",
        required=True,
        metavar="NAME",
        shell_complete=completing.gpus,
        help="A GPU, or 'auto' for the one in here.",
    ),
    _gpu_memory,
)

cards = bundle(
    _gpu_memory,
    _gpus(default="1", show_default=True, help="How many, one node."),
    _sharding(default="ddp"),
    _expandable_segments,
)

what = bundle(
    _model(required=True),
    on_gpu,
    _gpus(default="1", show_default=True, help="How many, one node."),
    _sharding(default="ddp"),
    _expandable_segments,
)

where = bundle(
    _model(required=True),
    click.option(
        "--gpu",
        metavar="NAME",
        shell_complete=completing.gpus,
        help="A GPU, or 'auto' for the one in here.  [default: any that has a price]",
    ),
    _gpu_memory,
    _gpus(default="1", show_default=True, help="How many of the named GPU, one node."),
    _sharding(default="ddp"),
    _expandable_segments,
    click.option(
        "--max-usd-per-hour", **AMOUNT, help="What all GPUs may cost an hour, where none is named."
    ),
)

training = bundle(
    click.option(
        "--seq-len",
        **COUNT,
        help="Tokens per sample (source length of encoder-decoders).  "
        "[default: 512, or the model's limit if that is less]",
    ),
    click.option(
        "--target-len",
        **COUNT,
        default="128",
        show_default=True,
        help="Decoder length of encoder-decoders.",
    ),
    click.option(
        "--padded/--packed", default=False, show_default=True, help="Do batches hold padding?"
    ),
    click.option(
        "--dtype", type=_choice(DType), default="bf16", show_default=True, help="Base weights."
    ),
    click.option("--amp", is_flag=True, help="Run forward and loss under autocast."),
    click.option(
        "--attention",
        type=_choice(Attention),
        default="sdpa",
        show_default=True,
        help="Attention implementation.",
    ),
)

one_run = bundle(
    click.option(
        "--batch-size",
        **COUNT,
        default="1",
        show_default=True,
        help="Samples per GPU and forward pass.",
    ),
    click.option(
        "--grad-accum",
        **COUNT,
        default="1",
        show_default=True,
        help="Forward passes per optimizer step.",
    ),
    click.option(
        "--quantization",
        type=_choice(Quantization),
        help="Of the base weights.  [default: as the method has it, else none]",
    ),
    click.option(
        "--optimizer",
        type=_choice(Optimizer),
        default="adamw",
        show_default=True,
        help="What updates the trained weights.",
    ),
    click.option(
        "--gradient-checkpointing",
        type=_choice(Checkpointing),
        default="none",
        is_flag=False,
        flag_value="non-reentrant",
        show_default=True,
        help="Recompute activations; without a value: non-reentrant.",
    ),
    click.option(
        "--loss",
        type=_choice(Loss),
        default="torch",
        show_default=True,
        help="Kernels of the loss: torch's, one of its own (Liger, Unsloth), or one for head and "
        "loss.",
    ),
    click.option(
        "--loop",
        type=_choice(Loop),
        default="plain",
        show_default=True,
        help="Are logits held during backward (plain) or let go of (transformers' Trainer)?",
    ),
    click.option(
        "--transformers",
        type=_choice(Transformers),
        default="5",
        show_default=True,
        help="Version whose models run: 5, 4 from 4.46 on, or up to 4.45.",
    ),
    click.option(
        "--kbit-preparation",
        type=_choice(KbitPreparation),
        default="peft",
        show_default=True,
        help="Of a quantized base, in fp32: all that is not quantized, norms alone, or nothing.",
    ),
)

_hyperparameters = bundle(
    click.option("--rank", **COUNT, help="Rank of the update."),
    click.option("--alpha", **AMOUNT, help="Scale of the update."),
    click.option("--dropout", **SHARE, help="Dropout in front of the update."),
    click.option("--target-modules", metavar="A,B", help="Modules to adapt, or all-linear."),
    click.option(
        "--set",
        "set_",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any other hyperparameter of the method, as JSON; repeatable.",
    ),
)

method = bundle(_method(required=True), _hyperparameters)
optional_method = bundle(_method(), _hyperparameters)

risk = click.option(
    "--max-risk",
    **SHARE,
    default="0.02",
    show_default=True,
    help="Accepted probability of running out of memory.",
)

_total_tokens = click.option("--tokens", **TOKENS, help="Size of the job in tokens, such as 10M.")
job = bundle(_total_tokens, risk)
size = bundle(click.option("--examples", **TOKENS, help="Examples in an epoch."), _total_tokens)

limits = bundle(
    click.option("--max-hours", **AMOUNT, help="What the job may last."),
    click.option("--max-usd", **AMOUNT, help="What the job may cost."),
)

brought = bundle(
    click.option(
        "--checkpoint",
        metavar="FOLDER",
        help="Measure with these weights (safetensors); without --model, also the model.",
    ),
    click.option("--data", metavar="FILE", help="Measure on these texts: a JSONL file."),
    click.option("--text-field", metavar="NAME", help="Key of a text.  [default: text]"),
    click.option(
        "--target-field", metavar="NAME", help="Key of what an encoder-decoder is to write."
    ),
    click.option(
        "--tokenizer",
        metavar="PATH",
        help="Its folder, or a tokenizer.json.  [default: the checkpoint's]",
    ),
)


def _form(*formats: str, purpose: str) -> Callable[[Command], Command]:
    return click.option(
        "--format",
        "fmt",
        type=click.Choice(formats),
        default="text",
        show_default=True,
        help=purpose,
    )


form = _form("text", "json", purpose="For people or for programs.")
_out = click.option(
    "--out",
    metavar="PATH",
    shell_complete=completing.files,
    help="Write to this file rather than to stdout.",
)
output = bundle(form, _out)
check_output = bundle(
    _form(
        "text",
        "json",
        "junit",
        "github",
        "sarif",
        purpose="For people, for programs, or what a pipeline's page shows: JUnit XML, GitHub's "
        "annotations, SARIF.",
    ),
    _out,
)
page_output = bundle(
    _form("text", "json", "html", purpose="For people, for programs, or a page of its own."), _out
)
