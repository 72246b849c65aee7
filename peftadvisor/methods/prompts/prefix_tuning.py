"""Prefix tuning: trained keys and values in every layer (Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import wrap
from peftadvisor.methods.prompts.soft_prompts import attention_heads, task_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained keys and values before those of every layer, by PEFT.

    Raises:
        UnsupportedError: the model is no language model that generates, checkpoints, or caches
            something else than keys and values of each head.
    """
    from peft import PrefixTuningConfig

    task = task_of(model, "prefix tuning", ("CAUSAL_LM", "SEQ_2_SEQ_LM"))
    if getattr(model, "is_gradient_checkpointing", False):
        raise UnsupportedError(
            "prefix tuning does not work with gradient checkpointing: the prefix is a key-value "
            "cache; turn checkpointing off or use prompt-tuning"
        )
    if _shares_one_head(model):
        raise UnsupportedError(
            f"{type(model).__name__} keeps keys and values of one head, and PEFT's prefix tuning "
            "makes them for every head; use lora or prompt-tuning instead"
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


def _shares_one_head(model: Any) -> bool:
    """True for Falcon-7B: its config names no key-value heads, by which PEFT would know."""
    config = model.config
    several = getattr(config, "new_decoder_architecture", True)
    return bool(getattr(config, "multi_query", False)) and not several


def _key_width(model: Any) -> int | None:
    """Width of all keys of a T5 layer, heads times d_kv; None elsewhere leaves it to PEFT.

    PEFT would take d_model, which T5-3B, T5-11B and v1.1 small do not have for it.
    """
    config = model.config
    return config.num_heads * config.d_kv if hasattr(config, "d_kv") else None


def trainable(layout: Layout, settings: Settings) -> int:
    """Keys and values, p·2e per (decoder) layer; cross-attention gets those of self-attention.

    With ``projection`` an embedding of width e and two linear layers, e to e to 2eL, make them.
    """
    p, e = settings["virtual_tokens"], layout.key_width
    made = 2 * e * (layout.decoder_layers or layout.layers)
    return p * e + e * e + e + e * made + made if settings["projection"] else p * made


def stored(layout: Layout, settings: Settings) -> int:
    """The keys and values; what made them is not kept."""
    return trainable(layout, {**settings, "projection": False})


PREFIX_TUNING = Method(
    name="prefix-tuning",
    title="Prefix tuning",
    family="soft prompt",
    year=2021,
    citation="Li and Liang 2021, arXiv 2101.00190",
    axes=Axes("yes", "yes", "no", "a longer input", "recalled"),
    hyperparameters=(
        Hyperparameter(
            "virtual_tokens",
            30,
            10,
            200,
            rule="30; longer for harder tasks",
            source="AdapterHub; PEFT's method comparison",
        ),
        Hyperparameter("projection", False, choices=(False, True)),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    quantized_base=True,
    several=True,
    rules=("R12",),
    virtual_tokens="virtual_tokens",
)
