"""CPT: in-context examples whose embeddings are trained within small balls (Blau et al. 2024).

Context-aware prompt tuning, arXiv 2410.17222. Tokens of the context have types, for PEFT: 1 and 3
are the template around input and output, 2 the input, and 4 the label, which stays as it is and
counts in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import task_type
from peftadvisor.methods.prompts.soft_prompts import wrap_embedded

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put the context, by PEFT, before the input.

    Without ``token_ids`` it is one example, an input and its label in a template, of the first ids
    of the vocabulary: memory and time depend on its length alone.

    Raises:
        UnsupportedError: the model does not generate text, or PEFT does not find its embeddings.
        UsageError: the types are not as many as the tokens.
    """
    from peft import CPTConfig

    if task_type(model) != "CAUSAL_LM":
        raise UnsupportedError(
            f"context-aware prompt tuning needs a causal language model; {type(model).__name__} "
            "is none; use prompt-tuning or lora instead"
        )
    size = context(settings)
    types = settings["token_types"] or [1, *[2] * (size - 3), 3, 4]
    if len(types) != size:
        raise UsageError(f"cpt: {len(types)} token_types for {size} tokens; give one for each")
    config = CPTConfig(
        task_type="CAUSAL_LM",
        cpt_token_ids=settings["token_ids"] or list(range(size)),
        cpt_mask=[1] * size,
        cpt_tokens_type_mask=types,
        opt_projection_epsilon=settings["radius"],
        opt_projection_format_epsilon=settings["template_radius"],
    )
    wrapped = wrap_embedded(model, config, "context-aware prompt tuning")
    for encoder in wrapped.prompt_encoder.values():
        encoder.get_projection = partial(_project, encoder)
    if next(model.parameters()).is_meta:
        wrapped._cpt_forward = partial(_one_label, wrapped)
    return wrapped


def _project(encoder: Any) -> Any:
    """The projection in place: PEFT puts a new tensor under the parameter at every forward pass."""
    weight = encoder.delta_embedding.weight.data
    return weight.copy_(type(encoder).get_projection(encoder))


def _one_label(wrapped: Any, *given: Any, **named: Any) -> Any:
    """PEFT asks which labels a batch holds, to weigh them; without values one stands for all."""
    with patch("torch.Tensor.unique", lambda labels: labels[:1]):
        return type(wrapped)._cpt_forward(wrapped, *given, **named)


def context(settings: Settings) -> int:
    """Number of tokens in the context."""
    return len(settings["token_ids"] or ()) or int(settings["virtual_tokens"])


def trainable(layout: Layout, settings: Settings) -> int:
    """A change of d per token of the context; those of labels get no gradient."""
    return context(settings) * layout.hidden


CPT = Method(
    name="cpt",
    title="Context-aware prompt tuning",
    family="soft prompt",
    year=2024,
    citation="Blau et al. 2024, arXiv 2410.17222",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter(
            "virtual_tokens", 64, 4, 512, rule="length of the examples, if token_ids is not given"
        ),
        Hyperparameter("radius", 0.2, 0.01, 1, rule="of inputs' balls", source="PEFT's tests"),
        Hyperparameter("template_radius", 0.1, 0.01, 1, source="PEFT defaults"),
        Hyperparameter("token_ids", None, rule="ids of the examples' tokens", source="PEFT"),
        Hyperparameter(
            "token_types",
            None,
            rule="one for each id: 1 to 4, plus 4 for each further example",
            source="PEFT",
        ),
    ),
    attach=attach,
    trainable=trainable,
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
