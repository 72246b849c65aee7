"""OLoRA: LoRA that starts from orthonormal factors of each weight (QR decomposition).

Büyükakyüz 2024, arXiv 2406.01775. What the factors hold is taken out of the frozen weight; it is
done again when the method is attached, so a saved adapter needs the same base weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.peft_backed import merge
from peftadvisor.methods.reparametrization import lora
from peftadvisor.methods.reparametrization.pissa import start_from_weights
from peftadvisor.methods.roles import is_linear


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA with its OLoRA start.

    Raises:
        UnsupportedError: the model has no query and value projections, a quantized base, or
            layers that hold their weight transposed.
    """
    from torch import nn

    if any(is_linear(m) and not isinstance(m, nn.Linear) for m in model.modules()):
        raise UnsupportedError(
            f"{type(model).__name__} has Conv1D layers, which PEFT's OLoRA decomposes the wrong "
            "way round; use pissa"
        )
    return start_from_weights(model, settings, "olora")


OLORA = Method(
    name="olora",
    title="OLoRA on query and value projections",
    family="reparametrization",
    year=2024,
    citation="Büyükakyüz 2024, arXiv 2406.01775",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=lora.HYPERPARAMETERS,
    attach=attach,
    trainable=lora.trainable,
    merge=merge,
)
