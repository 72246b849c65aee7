"""Prompt tuning: trained vectors before the input (Lester et al. 2021, arXiv 2104.08691)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.prompts.soft_prompts import attention_heads, task_of, wrap_embedded


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained vectors before the input embeddings, by PEFT.

    Raises:
        UnsupportedError: the model neither generates text nor classifies it, or PEFT does not
            find its embeddings.
    """
    from peft import PromptTuningConfig

    config = PromptTuningConfig(
        task_type=task_of(model, "prompt tuning", ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS")),
        num_virtual_tokens=settings["virtual_tokens"],
        num_transformer_submodules=1,  # PEFT's default of 2 makes twice the tokens and uses half
        num_attention_heads=attention_heads(model),
    )
    return wrap_embedded(model, config, "prompt tuning")


PROMPT_TUNING = Method(
    name="prompt-tuning",
    title="Prompt tuning",
    family="soft prompt",
    year=2021,
    citation="Lester et al. 2021, arXiv 2104.08691",
    axes=Axes("yes", "yes", "no", "a longer input", "recalled"),
    hyperparameters=(
        Hyperparameter(
            "virtual_tokens",
            20,
            20,
            100,
            rule="longer helps small models; the cost is a longer input",
            source="Lester et al. 2021; AdapterHub",
        ),
    ),
    attach=attach,
    trainable=lambda layout, settings: settings["virtual_tokens"] * layout.hidden + layout.head,
    quantized_base=True,
    several=True,
    rules=("R11", "R18"),
    virtual_tokens="virtual_tokens",
)
