"""BitFit: only the biases are trained (Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.roles import is_linear


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train every bias that the model has.

    Raises:
        UnsupportedError: no linear layer has a bias.
    """
    linear_biases = [
        m for m in model.modules() if is_linear(m) and getattr(m, "bias", None) is not None
    ]
    if not linear_biases:
        raise UnsupportedError(
            f"{type(model).__name__} has no bias in its linear layers for BitFit to train; "
            "use ln-tuning or lora instead"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    return model


BITFIT = Method(
    name="bitfit",
    title="BitFit: biases only",
    family="selective",
    citation="Ben Zaken et al. 2022, arXiv 2106.10199",
    defaults={},
    attach=attach,
    rules=("R10",),
    mergeable=True,
)
