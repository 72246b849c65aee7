"""PiSSA: LoRA that starts from the principal singular vectors of each weight.

Meng et al. 2024, arXiv 2404.02948. The rest of the weight stays frozen in the base; it is made
again when the method is attached, so a saved adapter needs the same base weights and ``init``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Hyperparameter, Method
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora

SEED = 0


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA with its PiSSA start.

    Raises:
        UnsupportedError: the model has no query and value projections, or a quantized base.
    """
    return start_from_weights(model, settings, settings["init"])


def start_from_weights(model: Any, settings: Mapping[str, Any], init: str) -> Any:
    """LoRA with a start of PEFT's that takes part of each weight, the same at every call.

    Weights on the meta device have no values: there only the shapes are made.

    Raises:
        UnsupportedError: the model cannot take LoRA, or has a quantized base.
    """
    import torch

    if getattr(model, "lora_layers", None) or getattr(model, "is_quantized", False):
        raise UnsupportedError(
            f"{init} starts from weights of 16 or 32 bits, this base is quantized; use loftq"
        )
    if next(model.parameters()).is_meta:
        return lora.attach(model, settings)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return lora.attach(model, settings, init_lora_weights=init)


ALPHA_AS_RANK = tuple(
    replace(p, default=8, rule="as the rank") if p.name == "alpha" else p
    for p in lora.HYPERPARAMETERS
)


PISSA = Method(
    name="pissa",
    title="PiSSA on query and value projections",
    family="reparametrization",
    year=2024,
    citation="Meng et al. 2024, arXiv 2404.02948",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=(
        *ALPHA_AS_RANK,
        Hyperparameter(
            "init",
            "pissa",
            choices=("pissa", "pissa_niter_4", "pissa_niter_16"),
            rule="exact; the others are a fast approximation for large models",
            source="PEFT",
        ),
    ),
    attach=attach,
    trainable=lora.trainable,
    merge=merge,
)
