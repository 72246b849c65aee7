"""Trainable tokens: the embeddings of a few tokens are trained, all else is frozen (HF PEFT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import merge, task_type, train_heads, wrap
from peftadvisor.methods.roles import hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

COUNT = 32


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model's input embedding (and what is tied to it) by PEFT's TrainableTokens.

    A classification head is trained as well, which PEFT leaves as it is for this method.

    Raises:
        UnsupportedError: the model reads no tokens, or its embedding is not as wide as its layers.
    """
    from peft import TrainableTokensConfig

    embedding = _embedding(model)
    shape = () if embedding is None else tuple(embedding.weight.shape)
    if len(shape) != 2 or shape[1] != hidden_size(model):
        raise UnsupportedError(
            f"{type(model).__name__} has no token embedding as wide as its layers; use lora instead"
        )
    config = TrainableTokensConfig(
        task_type=task_type(model), token_indices=tokens(shape[0], settings)
    )
    wrapped = wrap(model, config)
    train_heads(model)
    return wrapped


def _embedding(model: Any) -> Any:
    from torch import nn

    try:
        found = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return found if isinstance(found, nn.Embedding) else None


def tokens(vocabulary: int, settings: Settings) -> list[int]:
    """The ids that are trained: as set, or the first 32."""
    given = settings["token_indices"]
    return list(range(min(COUNT, vocabulary))) if given is None else list(given)


def trainable(layout: Layout, settings: Settings) -> int:
    """An embedding of d per token."""
    return layout.head + layout.hidden * len(tokens(layout.vocabulary, settings))


TRAINABLE_TOKENS = Method(
    name="trainable-tokens",
    title="Trainable tokens: the embeddings of a few tokens",
    family="selective",
    year=2025,
    citation="HF PEFT, TrainableTokens, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "token_indices",
            None,
            rule="ids of new or rare tokens; only their number counts for memory; the first 32 by "
            "default, as an example",
            source="PEFT",
        ),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
