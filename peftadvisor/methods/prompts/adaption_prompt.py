"""Adaption prompts (LLaMA-Adapter): gated attention to trained vectors in the upper layers.

Zhang et al. 2023, arXiv 2303.16199.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import task_type, train_heads, wrap
from peftadvisor.methods.roles import hidden_size, layers

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the attention of the upper layers by PEFT's AdaptionPrompt.

    Raises:
        UnsupportedError: the model's type is none that PEFT knows for it, or its attention is
            not as wide as its layers.
    """
    from peft import AdaptionPromptConfig
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG as KNOWN

    config = model.config
    if config.model_type not in KNOWN:
        raise UnsupportedError(
            f"PEFT has adaption prompts for {', '.join(KNOWN)} alone, and {type(model).__name__} "
            "is none of them; use prefix-tuning or lora instead"
        )
    width = getattr(config, "head_dim", None)
    if width and width * config.num_attention_heads != hidden_size(model):
        raise UnsupportedError(
            f"the attention of this {type(model).__name__} is not as wide as its layers, which "
            "PEFT's adaption prompts need; use prefix-tuning or lora instead"
        )
    adaption = AdaptionPromptConfig(
        task_type=task_type(model),
        adapter_len=settings["virtual_tokens"],
        adapter_layers=min(settings["layers"], len(list(layers(model)))),
    )
    wrapped = wrap(model, adaption)
    train_heads(model)
    return wrapped


def trainable(layout: Layout, settings: Settings) -> int:
    """P vectors of d and a gate in each of the upper layers: pd + 1."""
    per_layer = settings["virtual_tokens"] * layout.hidden + 1
    return layout.head + min(settings["layers"], layout.layers) * per_layer


ADAPTION_PROMPT = Method(
    name="adaption-prompt",
    title="Adaption prompts (LLaMA-Adapter)",
    family="soft prompt",
    year=2023,
    citation="Zhang et al. 2023, arXiv 2303.16199",
    axes=Axes("yes", "yes", "no", "attention to a prompt", "derived"),
    hyperparameters=(
        Hyperparameter("virtual_tokens", 10, 5, 50, source="paper"),
        Hyperparameter("layers", 30, 8, 32, rule="of the upper ones; 30 of 32", source="paper"),
    ),
    attach=attach,
    trainable=trainable,
    several=True,
)
