"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Method


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train everything but what the model itself keeps fixed (Pegasus's sinusoid positions).

    Raises:
        UnsupportedError: the base is quantized.
    """
    if not all(p.is_floating_point() for p in model.parameters()):
        raise UnsupportedError(
            "full fine-tuning cannot train a quantized base; use qlora, or no quantization"
        )
    return model


FULL = Method(
    name="full",
    title="Full fine-tuning",
    family="full",
    year=2018,
    citation="the baseline of Lialin et al. 2023, arXiv 2303.15647",
    axes=Axes("no", "no", "no", "none", "derived"),
    attach=attach,
    trainable=lambda layout, _: layout.total,
    merge=lambda model: model,
    rules=("R7",),
)
