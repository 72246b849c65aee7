"""BitFit: only the biases are trained (Ben Zaken et al. 2022, arXiv 2106.10199)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Method, Settings
from peftadvisor.methods.peft_backed import train_heads
from peftadvisor.methods.roles import is_linear, language_part

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Train every bias that the (language) model has, and a classification head as a whole.

    Raises:
        UnsupportedError: no linear layer has a bias.
    """
    _, part = language_part(model)
    if not any(is_linear(m) and getattr(m, "bias", None) is not None for m in part.modules()):
        raise UnsupportedError(
            f"{type(model).__name__} has no bias in its linear layers for BitFit to train; "
            "use ln-tuning or lora instead"
        )
    model.requires_grad_(False)
    for name, parameter in part.named_parameters():
        if name.endswith("bias"):
            parameter.requires_grad_(True)
    return train_heads(model)


def trainable(layout: Layout, _: Settings) -> int:
    """Every bias, those of normalization layers too; a classification head whole."""
    return layout.biases + layout.norm_biases + layout.head


BITFIT = Method(
    name="bitfit",
    title="BitFit: biases only",
    family="selective",
    year=2022,
    citation="Ben Zaken et al. 2022, arXiv 2106.10199",
    axes=Axes("yes", "yes", "no", "none", "recalled"),
    attach=attach,
    trainable=trainable,
    merge=lambda model: model,
    quantized_base=True,
    rules=("R10",),
)
