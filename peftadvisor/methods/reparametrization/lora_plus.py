"""LoRA+: LoRA whose B factors learn faster than A (Hayou et al. 2024, arXiv 2402.12354)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.methods.base import Hyperparameter, MakeOptimizer, Method
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora

RATE = 1e-4


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA; it keeps the ratio of learning rates for its optimizer.

    Raises:
        UnsupportedError: the model has no query and value projections.
    """
    wrapped = lora.attach(model, settings)
    wrapped.lora_plus_ratio = settings["lr_ratio"]
    return wrapped


def optimizer(model: Any, make: MakeOptimizer) -> Any:
    """The user's optimizer over PEFT's groups: A, B times the ratio."""
    from peft.optimizers import create_loraplus_optimizer

    def grouped(groups: list[dict[str, Any]], **_: Any) -> Any:
        return make([group for group in groups if group["params"]])

    return create_loraplus_optimizer(
        model, grouped, lr=RATE, loraplus_lr_ratio=model.lora_plus_ratio
    )


LORA_PLUS = Method(
    name="lora-plus",
    title="LoRA+ on query and value projections",
    family="reparametrization",
    year=2024,
    citation="Hayou et al. 2024, arXiv 2402.12354",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=(
        *lora.HYPERPARAMETERS,
        Hyperparameter(
            "lr_ratio",
            16,
            2,
            16,
            rule="16; with half of LoRA's learning rate for A",
            source="PEFT",
            shapes="none",
        ),
    ),
    attach=attach,
    trainable=lora.trainable,
    merge=merge,
    optimizer=optimizer,
    quantized_base=True,
    several=True,
)
