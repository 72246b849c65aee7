"""Prefix tuning: trained keys and values in every layer (Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.peft_backed import wrap
from peftadvisor.methods.soft_prompts import attention_heads, task_of


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained keys and values before those of every layer, by PEFT.

    Raises:
        UnsupportedError: the model is no language model that generates, checkpoints, or caches
            something else than keys and values.
    """
    from peft import PrefixTuningConfig

    task = task_of(model, "prefix tuning", ("CAUSAL_LM", "SEQ_2_SEQ_LM"))
    if getattr(model, "is_gradient_checkpointing", False):
        raise UnsupportedError(
            "prefix tuning does not work with gradient checkpointing: the prefix is a key-value "
            "cache; turn checkpointing off or use prompt-tuning"
        )
    if not _has_plain_cache(model):
        raise UnsupportedError(
            f"{type(model).__name__} does not cache keys and values of one shape in every layer, "
            "which PEFT's prefix tuning needs; use lora or prompt-tuning instead"
        )
    config = PrefixTuningConfig(
        task_type=task,
        num_virtual_tokens=settings["virtual_tokens"],
        prefix_projection=settings["projection"],
        num_attention_heads=attention_heads(model),
        token_dim=_key_width(model),
    )
    return wrap(model, config)


def _has_plain_cache(model: Any) -> bool:
    """False for latent attention (DeepSeek), and where some layers have no attention at all."""
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    latent = getattr(text, "kv_lora_rank", None) is not None
    return not latent and kinds <= {"full_attention", "sliding_attention", "chunked_attention"}


def _key_width(model: Any) -> int | None:
    """Width of all keys of a T5 layer, heads times d_kv; None elsewhere leaves it to PEFT.

    PEFT would take d_model, which T5-3B, T5-11B and v1.1 small do not have for it.
    """
    config = model.config
    return config.num_heads * config.d_kv if hasattr(config, "d_kv") else None


PREFIX_TUNING = Method(
    name="prefix-tuning",
    title="Prefix tuning",
    family="soft prompt",
    citation="Li and Liang 2021, arXiv 2101.00190",
    defaults={"virtual_tokens": 30, "projection": False},
    attach=attach,
    rules=("R12",),
    virtual_tokens="virtual_tokens",
)
