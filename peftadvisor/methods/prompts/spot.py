"""SPoT: prompt tuning that starts from another task's prompt (Vu et al. 2022, arXiv 2110.07904)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.prompts import prompt_tuning
from peftadvisor.methods.prompts.soft_prompts import task_of


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put trained vectors before the input embeddings, by PEFT; they start as the source prompt.

    Without one they start as embeddings of random words.

    Raises:
        UnsupportedError: the model does not generate text, or PEFT does not find its embeddings.
        UsageError: the file cannot be read, or holds no prompt of this length and width.
    """
    task_of(model, "SPoT", ("CAUSAL_LM", "SEQ_2_SEQ_LM"))
    wrapped = prompt_tuning.attach(model, settings)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    if settings["source_prompt"] is None:
        start_from_words(wrapped)
    else:
        weight.data.copy_(_read_prompt(Path(settings["source_prompt"]), tuple(weight.shape)))
    return wrapped


def start_from_words(wrapped: Any) -> None:
    """Let the prompt start as embeddings of random words of the vocabulary."""
    import torch

    weight, words = wrapped.prompt_encoder["default"].embedding.weight, wrapped.word_embeddings
    drawn = torch.randint(words.num_embeddings, (len(weight),), device=words.weight.device)
    with torch.no_grad():
        weight.copy_(words(drawn))


def _read_prompt(path: Path, shape: tuple[int, ...]) -> Any:
    """The prompt in a file that PEFT or ``Attached.save`` wrote: the one tensor of this shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read as safetensors: {error}") from error
    fitting = [tensor for name, tensor in tensors.items() if "prompt" in name]
    if len(fitting) != 1 or tuple(fitting[0].shape) != shape:
        raise UsageError(
            f"{path} holds no prompt of {shape[0]} tokens of width {shape[1]}; set virtual_tokens "
            "to those of the source prompt, and take one of the same model"
        )
    return fitting[0]


SPOT = Method(
    name="spot",
    title="SPoT: prompt tuning from a source task's prompt",
    family="soft prompt",
    year=2022,
    citation="Vu et al. 2022, arXiv 2110.07904",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter("virtual_tokens", 100, 20, 100, source="paper"),
        Hyperparameter("source_prompt", None, rule="safetensors file of a trained prompt"),
    ),
    attach=attach,
    trainable=lambda layout, settings: settings["virtual_tokens"] * layout.hidden,
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
