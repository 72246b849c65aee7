"""DoRA: LoRA with the magnitude of each row trained apart (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, merge
from peftadvisor.methods.reparametrization import lora

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA with ``use_dora``."""
    return lora.attach(model, {**settings, "use_dora": True})


def trainable(layout: Layout, settings: Settings) -> int:
    """As LoRA, and a magnitude per output of each adapted layer."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return lora.trainable(layout, settings) + sum(linear.outputs for linear in chosen)


DORA = Method(
    name="dora",
    title="DoRA on query and value projections",
    family="reparametrization",
    year=2024,
    citation="Liu et al. 2024, arXiv 2402.09353",
    axes=lora.AXES,
    hyperparameters=lora.HYPERPARAMETERS,
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
