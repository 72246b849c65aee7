"""P-tuning: trained vectors before the input, made by a small network (Liu et al. 2021).

arXiv 2103.10385.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.prompts.soft_prompts import attention_heads, task_of, wrap_embedded
from peftadvisor.methods.roles import hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put PEFT's prompt encoder, an embedding and a network of three layers, before the input.

    Raises:
        UnsupportedError: the model neither generates text nor classifies it, or PEFT does not
            find its embeddings.
    """
    from peft import PromptEncoderConfig

    config = PromptEncoderConfig(
        task_type=task_of(model, "p-tuning", ("CAUSAL_LM", "SEQ_2_SEQ_LM", "SEQ_CLS")),
        num_virtual_tokens=settings["virtual_tokens"],
        num_transformer_submodules=1,
        num_attention_heads=attention_heads(model),
        encoder_hidden_size=settings["encoder_width"] or hidden_size(model),
    )
    return wrap_embedded(model, config, "p-tuning")


def trainable(layout: Layout, settings: Settings) -> int:
    """Vectors p·d and layers of d to h to h to d with biases: 2dh + h² + 2h + d."""
    d, h = layout.hidden, settings["encoder_width"] or layout.hidden
    return stored(layout, settings) + 2 * d * h + h * h + 2 * h + d


def stored(layout: Layout, settings: Settings) -> int:
    """The vectors that come out; what made them is not kept."""
    return layout.head + settings["virtual_tokens"] * layout.hidden


P_TUNING = Method(
    name="p-tuning",
    title="P-tuning: a prompt made by a small network",
    family="soft prompt",
    year=2021,
    citation="Liu et al. 2021, arXiv 2103.10385",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter("virtual_tokens", 20, 10, 100, source="PEFT's documentation"),
        Hyperparameter(
            "encoder_width",
            None,
            rule="of the network's hidden layers; that of the model by default",
            source="PEFT's documentation",
        ),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
