"""WARP: word-level adversarial reprogramming (Hambardzumyan et al. 2021, arXiv 2101.00121).

Trained tokens are inserted in the input of a masked language model, and classes have trained
vectors to compare with what it says at a mask. Here the model has its classification form: the
first inserted token is what the head reads, as the mask is in the paper, and the head trained whole
is the vectors of the classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.peft_backed import task_type
from peftadvisor.methods.prompts import prompt_tuning
from peftadvisor.methods.prompts.spot import start_from_words


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained vectors before the input embeddings, by PEFT, and train the head.

    They start as the embedding of the mask if its id is known, else as those of random words.

    Raises:
        UnsupportedError: the model classifies no text, or was no masked language model.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING as MASKED

    if task_type(model) != "SEQ_CLS" or type(model.config) not in MASKED:
        raise UnsupportedError(
            f"WARP needs a masked language model with a head that classifies sequences; "
            f"{type(model).__name__} is none; use prompt-tuning instead"
        )
    wrapped = prompt_tuning.attach(model, settings)
    start_from_words(wrapped)
    mask = settings["mask_token_id"]
    if mask is not None:
        weight = wrapped.prompt_encoder["default"].embedding.weight
        weight.data[:] = wrapped.word_embeddings.weight.data[mask]
    return wrapped


WARP = Method(
    name="warp",
    title="WARP: adversarial reprogramming of masked language models",
    family="soft prompt",
    year=2021,
    citation="Hambardzumyan et al. 2021, arXiv 2101.00121",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter("virtual_tokens", 20, 1, 40, source="paper"),
        Hyperparameter("mask_token_id", None, rule="id of the tokenizer's mask, 103 in BERT"),
    ),
    attach=attach,
    trainable=lambda layout, settings: settings["virtual_tokens"] * layout.hidden + layout.head,
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
