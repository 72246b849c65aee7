"""GraLoRA: LoRA in blocks (Jung et al. 2025, arXiv 2505.20355)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Gralora, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return adapt(
        model,
        "GraloraConfig",
        settings["target_modules"],
        r=settings["rank"],
        alpha=settings["alpha"],
        gralora_k=settings["blocks"],
    )


def trainable(layout: Layout, settings: Settings) -> int:
    """As LoRA: r·(i + o); the blocks share out what LoRA has as one."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) for x in chosen)


GRALORA = Method(
    name="gralora",
    title="GraLoRA: LoRA in blocks",
    family="reparametrization",
    year=2025,
    citation="Jung et al. 2025, arXiv 2505.20355",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 32, 32, 128, rule="a multiple of the blocks", source="PEFT's method comparison"
        ),
        Hyperparameter("alpha", 64, 32, 128, rule="twice the rank", source="PEFT defaults"),
        Hyperparameter("blocks", 2, 2, 4, rule="2, or 4 from rank 64 on", source="GraLoRA paper"),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
