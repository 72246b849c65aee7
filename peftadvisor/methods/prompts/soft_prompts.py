"""What the soft prompts share: which models take them, and what PEFT cannot read of a config."""

from __future__ import annotations

from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.peft_backed import task_type, wrap


def task_of(model: Any, title: str, tasks: tuple[str, ...]) -> str:
    """The model's task as PEFT names it.

    Raises:
        UnsupportedError: it is none of those that the method works for.
    """
    task = task_type(model)
    if task not in tasks:
        raise UnsupportedError(
            f"{title} needs a language model that reads and writes text; "
            f"{type(model).__name__} is none"
        )
    return task


def attention_heads(model: Any) -> int | None:
    """Number of heads, under whatever name the config has it; PEFT knows four names."""
    return getattr(model.config.get_text_config(), "num_attention_heads", None)


def wrap_embedded(model: Any, config: Any, title: str) -> Any:
    """Wrap the model by PEFT's prompt, which goes before its word embeddings.

    Raises:
        UnsupportedError: PEFT refuses the combination, or does not find the embeddings.
    """
    wrapped = wrap(model, config)
    if wrapped.word_embeddings is None:
        raise UnsupportedError(
            f"PEFT does not find the word embeddings of {type(model).__name__}, which {title} "
            "needs; use lora instead"
        )
    return wrapped
