"""Multitask prompt tuning: one prompt times a matrix of rank r per task (Wang et al. 2023).

arXiv 2303.02861.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.prompts.soft_prompts import attention_heads, task_of, wrap_embedded

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put PEFT's multitask prompt before the input; inputs are of task 0 where nobody says.

    Raises:
        UnsupportedError: the model neither generates text nor classifies it, or PEFT does not
            find its embeddings.
    """
    from peft import MultitaskPromptTuningConfig

    title = "multitask prompt tuning"
    config = MultitaskPromptTuningConfig(
        task_type=task_of(model, title, ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS")),
        num_virtual_tokens=settings["virtual_tokens"],
        num_transformer_submodules=1,
        num_attention_heads=attention_heads(model),
        num_ranks=settings["rank"],
        num_tasks=settings["tasks"],
    )
    wrapped = wrap_embedded(model, config, title)
    for encoder in wrapped.prompt_encoder.values():
        encoder.register_forward_pre_hook(_first_task)
    return wrapped


def _first_task(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, Any]:
    """Indices and tasks, all of them the first where none are given."""
    indices, tasks = inputs
    return indices, indices.new_zeros(len(indices)) if tasks is None else tasks


def trainable(layout: Layout, settings: Settings) -> int:
    """A prompt of p·d, and per task factors of rank r: r·(p + d)."""
    p, d = settings["virtual_tokens"], layout.hidden
    return layout.head + p * d + settings["tasks"] * settings["rank"] * (p + d)


MULTITASK_PROMPT = Method(
    name="multitask-prompt",
    title="Multitask prompt tuning",
    family="soft prompt",
    year=2023,
    citation="Wang et al. 2023, arXiv 2303.02861",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter("virtual_tokens", 20, 20, 100, rule="100 in the paper", source="paper"),
        Hyperparameter("rank", 1, 1, 4, source="paper; PEFT defaults", shapes="linear"),
        Hyperparameter(
            "tasks", 1, 1, 100, rule="source tasks; 1 for the target task", source="PEFT defaults"
        ),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
