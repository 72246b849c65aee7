"""Runnable configurations out of estimates: a script, or another tool's config."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from peftadvisor.advisor.advised import Advised
from peftadvisor.data.query_value import query_value
from peftadvisor.errors import UsageError
from peftadvisor.integrations.exports import axolotl, llamafactory, peft, torchtune, trl
from peftadvisor.integrations.exports.commands import estimate_command
from peftadvisor.integrations.exports.liger import MODEL_TYPES
from peftadvisor.integrations.exports.lora import REMOTE
from peftadvisor.integrations.exports.value import Export, Format
from peftadvisor.methods import find_method
from peftadvisor.profiles import Estimate
from peftadvisor.specs import Job, RunSpec

__all__ = ["FORMATS", "Export", "Format", "estimate_command", "export"]

FORMATS: Mapping[str, Format] = {
    found.name: found
    for found in (
        peft.FORMAT,
        axolotl.FORMAT,
        llamafactory.FORMAT,
        torchtune.FORMAT,
        trl.FORMAT,
    )
}
"""Every format by its name."""

_NEAR: Mapping[str, tuple[str, ...]] = {
    "adapter": ("lora-mlp", "ia3"),
    "soft prompt": ("prefix-tuning", "prompt-tuning"),
    "selective": ("bitfit", "ln-tuning", "shira"),
    "additive": ("ia3", "lora"),
    "reparametrization": ("lora", "lora-all", "vera"),
    "hybrid": ("lora-all", "prefix-tuning"),
    "full": ("full", "galore"),
}
"""Methods that can be exported, by the family of one that cannot."""


def export(estimate: Estimate, advised: tuple[Advised, ...], job: Job, fmt: str) -> str:
    """What trains as the estimate assumes, in the named format.

    Raises:
        UsageError: no such format, or it lacks the method, a lever or the task; the message says
            which format has it.
    """
    chosen = _format(fmt)
    _require_offered(chosen, estimate.run)
    made = datetime.now(UTC).date()
    return chosen.write(Export(estimate=estimate, advised=advised, job=job, made=made))


def _format(name: str) -> Format:
    if name not in FORMATS:
        close = get_close_matches(name.lower(), FORMATS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise UsageError(f"unknown format '{name}'; {hint}There are: {', '.join(FORMATS)}")
    return FORMATS[name]


def _require_offered(chosen: Format, run: RunSpec) -> None:
    if run.model.model_type in REMOTE:
        raise UsageError(
            f"the checkpoint of {run.model.id} runs code of its own, with layers of other names "
            "than transformers' that were estimated; export a model that transformers ships"
        )
    name = run.method.name
    if name not in chosen.methods:
        raise UsageError(f"{chosen.name} has no {name}; {_where(chosen, name)}")
    if chosen.text_only and not generates_text(run.model.config):
        raise UsageError(
            f"{chosen.name} trains causal language models, and {run.model.id} is none; use peft"
        )
    if chosen.liger and run.training.loss != "torch" and run.model.model_type not in MODEL_TYPES:
        raise UsageError(
            f"Liger has no loss for models of type {run.model.model_type}; estimate with --loss "
            "torch"
        )
    for lever, value in _levers(run):
        offered = chosen.offers.get(lever)
        if offered is not None and value not in offered:
            others = [
                f.name for f in FORMATS.values() if name in f.methods and _has(f, lever, value)
            ]
            use = f"use {' or '.join(others)}" if others else "change it"
            raise UsageError(f"{chosen.name} has no {lever} '{value}' for {name}; {use}")


def _has(chosen: Format, lever: str, value: Any) -> bool:
    offered: Collection[Any] = chosen.offers.get(lever, (value,))
    return value in offered


def _where(chosen: Format, method: str) -> str:
    others = [f.name for f in FORMATS.values() if method in f.methods]
    if others:
        return f"these formats have it: {', '.join(others)}"
    near = [name for name in _NEAR[find_method(method).family] if name in chosen.methods]
    near = near or [name for name in ("lora", "lora-all", "full") if name in chosen.methods]
    return f"no format has; near it are {', '.join(near)}"


def _levers(run: RunSpec) -> Iterator[tuple[str, Any]]:
    for name in ("dtype", "quantization", "optimizer", "attention", "loss"):
        yield name, getattr(run.training, name)
    yield "gradient checkpointing", run.training.gradient_checkpointing
    yield "sharding", run.sharding if run.gpus > 1 else "none"


def generates_text(config: Mapping[str, Any]) -> bool:
    """Whether a config is of a causal language model, alone or with other towers."""
    names = config.get("architectures")
    if not names:
        return query_value(str(config.get("model_type"))) is not None
    text_only = str(names[0]).endswith(("ForCausalLM", "LMHeadModel"))
    towers = "ForConditionalGeneration" in str(names[0]) and "vision_config" in config
    return text_only or towers
