"""Intrinsic prompt tuning: a prompt decoded from a few numbers (Qin et al. 2021, arXiv 2110.07867).

The frozen decoder, n to m to p·d numbers with a tanh, is learned once from the prompts of many
tasks; a new task trains its n inputs alone. Without such a decoder a random one stands in, which
has the memory and speed of a learned one, not its use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.prompts import prompt_tuning
from peftadvisor.methods.prompts.soft_prompts import task_of


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Put a decoded prompt before the input embeddings, by PEFT, and train what is decoded.

    Raises:
        UnsupportedError: the model does not generate text, or PEFT does not find its embeddings.
        UsageError: the file of the decoder cannot be read, or is of other sizes.
    """
    import torch

    task_of(model, "intrinsic prompt tuning", ("CAUSAL_LM", "SEQ_2_SEQ_LM"))
    wrapped = prompt_tuning.attach(model, settings)
    encoder = wrapped.prompt_encoder["default"]
    tokens, width = encoder.embedding.weight.shape
    with torch.device(encoder.embedding.weight.device):
        decoder = _decoder(settings["dimension"], settings["width"], tokens * width)
        if settings["decoder"] is not None:
            _load(decoder, Path(settings["decoder"]))
        encoder.embedding = _decoded(decoder, settings["dimension"], tokens)
    return wrapped


def _decoder(dimension: int, inner: int, size: int) -> Any:
    from torch import nn

    layers = nn.Sequential(nn.Linear(dimension, inner), nn.Tanh(), nn.Linear(inner, size))
    return layers.requires_grad_(False)


def _load(decoder: Any, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        decoder.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UsageError(
            f"{path} holds no decoder of these sizes, as tensors 0.weight, 0.bias, 2.weight and "
            f"2.bias: {' '.join(str(error).split())[:150]}"
        ) from error


def _decoded(decoder: Any, dimension: int, tokens: int) -> Any:
    """What takes the place of PEFT's embedding of the prompt."""
    import torch
    from torch import nn

    class Decoded(nn.Module):
        """Rows of the decoded prompt; ``weight``, as PEFT calls it, is what is decoded."""

        def __init__(self, decoder: Any) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(dimension))
            self.decoder = decoder

        def forward(self, indices: Any) -> Any:
            prompt = self.decoder(self.weight).view(tokens, -1)
            return nn.functional.embedding(indices, prompt)

    return Decoded(decoder)


IPT = Method(
    name="ipt",
    title="Intrinsic prompt tuning",
    family="soft prompt",
    year=2021,
    citation="Qin et al. 2021, arXiv 2110.07867",
    axes=Axes("yes", "yes", "no", "a longer input", "derived"),
    hyperparameters=(
        Hyperparameter("dimension", 250, 5, 250, rule="n, what is trained", source="paper"),
        Hyperparameter("virtual_tokens", 100, 20, 100, rule="p", source="paper"),
        Hyperparameter("width", 768, 128, 1024, rule="m, inside of the decoder"),
        Hyperparameter("decoder", None, rule="safetensors file of a learned one; random without"),
    ),
    attach=attach,
    trainable=lambda _, settings: int(settings["dimension"]),
    quantized_base=True,
    several=True,
    virtual_tokens="virtual_tokens",
)
