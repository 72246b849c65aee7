"""How much a job holds: optimizer steps, epochs, tokens learned, and the rank that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from peftadvisor.methods.base import Method
from peftadvisor.methods.linears import config_linears, hidden_width
from peftadvisor.methods.sites import Layout, Linear
from peftadvisor.specs import Job, ModelSpec

_RANKS = (64, 32)
"""Two ranks whose counts are compared; a share of them (sparse factors) is a whole number."""

_MORE_TARGETS: Mapping[str, tuple[str, ...]] = {"phi": ("q_proj", "v_proj", "fc1", "fc2")}
"""Where PEFT's table names more than query and value."""


def run_steps(job: Job, batch_size: int, epochs: float | None = None) -> int | None:
    """Optimizer steps of the job, or of ``epochs`` where it leaves them open; None if unknown."""
    if job.steps is not None:
        return job.steps
    chosen = job.epochs if job.epochs is not None else epochs
    if job.examples is None or chosen is None:
        return None
    return math.ceil(job.examples * chosen / batch_size)


def run_epochs(job: Job, batch_size: int) -> float | None:
    """Passes over the data, as said or as the steps make them; None where unknown."""
    if job.epochs is not None or job.steps is None or job.examples is None:
        return job.epochs
    return job.steps * batch_size / job.examples


def epochs_for(job: Job, batch_size: int, steps: float, low: int, high: int) -> int:
    """The fewest epochs from low to high that make so many steps; low where data is unknown."""
    if job.examples is None:
        return low
    return min(high, max(low, math.ceil(steps * batch_size / job.examples)))


def learned_tokens(job: Job) -> float | None:
    """Tokens of one epoch that carry a loss (all of them, where the job does not say which).

    Further epochs bring the same tokens again, and so nothing more to hold.
    """
    each = job.learned_per_example or job.tokens_per_example
    return None if job.examples is None or each is None else job.examples * each


def parameters_per_rank(method: Method, model: ModelSpec, targets: Any) -> int | None:
    """Trained parameters that one more rank brings, by the method's own formula.

    Read from the config, so None for families whose config does not tell their linear layers
    (``config_linears``), and for methods whose rank trains nothing more. ``targets`` None are
    the method's own, query and value for most.
    """
    linears = config_linears(model.config)
    if linears is None or "rank" not in method.defaults:
        return None
    layout = _layout(model, linears)
    settings = method.defaults
    if "target_modules" in settings:
        settings["target_modules"] = targets or _own_targets(method, model, linears)
    more, fewer = (method.trainable(layout, {**settings, "rank": rank}) for rank in _RANKS)
    return (more - fewer) // (_RANKS[0] - _RANKS[1]) or None


def rank_holding(tokens: float, per_rank: int, tokens_per_parameter: float = 1.0) -> float:
    """The rank whose parameters are as many as the tokens, or as that share of them."""
    return tokens / tokens_per_parameter / per_rank


def _own_targets(
    method: Method, model: ModelSpec, linears: Sequence[Linear]
) -> Sequence[str] | None:
    """Names of query and value projections; None for a method that finds its layers by role.

    Named here because PEFT's own table, which the formulas would read, takes seconds to import.
    """
    if method.name == "lora-mlp":
        return None
    if model.model_type in _MORE_TARGETS:
        return _MORE_TARGETS[model.model_type]
    roles = ("q", "v", "qkv")
    return sorted({x.path.rpartition(".")[2] for x in linears if x.role in roles})


def _layout(model: ModelSpec, linears: tuple[Linear, ...]) -> Layout:
    """The linear layers alone: differences between ranks read nothing else, so the rest is 0."""
    return Layout(
        model_type=model.model_type,
        hidden=hidden_width(model.config) or 0,
        key_width=0,
        vocabulary=0,
        layers=1 + max(linear.layer for linear in linears),
        decoder_layers=0,
        linears=linears,
        norms=0,
        norm_biases=0,
        biases=0,
        head=0,
        total=0,
    )
