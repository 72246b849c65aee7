"""Soft prompts that PEFT implements: prompt tuning and prefix tuning.

Lester et al. 2021, arXiv 2104.08691; Li and Liang 2021, arXiv 2101.00190.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.peft_backed import task_type, wrap

_GENERATES = ("CAUSAL_LM", "SEQ_2_SEQ_LM")


def attach_prompt(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained vectors before the input embeddings.

    Raises:
        UnsupportedError: the model is no language model that generates.
    """
    from peft import PromptTuningConfig

    config = PromptTuningConfig(
        task_type=_generating_task(model, "prompt tuning"),
        num_virtual_tokens=settings["virtual_tokens"],
    )
    return wrap(model, config)


def attach_prefix(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained keys and values before those of every layer.

    Raises:
        UnsupportedError: the model is no language model that generates, or checkpoints.
    """
    from peft import PrefixTuningConfig

    task = _generating_task(model, "prefix tuning")
    if getattr(model, "is_gradient_checkpointing", False):
        raise UnsupportedError(
            "prefix tuning does not work with gradient checkpointing: the prefix is a key-value "
            "cache; turn checkpointing off or use prompt-tuning"
        )
    config = PrefixTuningConfig(
        task_type=task,
        num_virtual_tokens=settings["virtual_tokens"],
        prefix_projection=settings["projection"],
        token_dim=_key_width(model),
    )
    return wrap(model, config)


def _key_width(model: Any) -> int | None:
    """Width of all keys of a T5 layer, heads times d_kv; None elsewhere leaves it to PEFT.

    PEFT would take d_model, which T5-3B, T5-11B and v1.1 small do not have for it.
    """
    config = model.config
    return config.num_heads * config.d_kv if hasattr(config, "d_kv") else None


def _generating_task(model: Any, title: str) -> str:
    task = task_type(model)
    if task not in _GENERATES:
        raise UnsupportedError(
            f"{type(model).__name__} generates no text: {title} needs a language model that does"
        )
    return task


PROMPT_TUNING = Method(
    name="prompt-tuning",
    title="Prompt tuning",
    family="soft prompt",
    citation="Lester et al. 2021, arXiv 2104.08691",
    defaults={"virtual_tokens": 20},
    attach=attach_prompt,
    rules=("R11", "R18"),
    virtual_tokens="virtual_tokens",
)

PREFIX_TUNING = Method(
    name="prefix-tuning",
    title="Prefix tuning",
    family="soft prompt",
    citation="Li and Liang 2021, arXiv 2101.00190",
    defaults={"virtual_tokens": 30, "projection": False},
    attach=attach_prefix,
    rules=("R12",),
)
