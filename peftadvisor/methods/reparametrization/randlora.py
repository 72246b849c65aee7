"""RandLoRA: scaled sums of random low-rank matrices (Albert et al. 2025, arXiv 2502.00987)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's RandLora, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    return adapt(
        model,
        "RandLoraConfig",
        settings["target_modules"],
        r=settings["rank"],
        randlora_alpha=20 * settings["rank"],
    )


def trainable(layout: Layout, settings: Settings) -> int:
    """N = ⌈m / r⌉ random pairs, m the smaller width; n scales per rank and per m: n·(r + m)."""
    r = settings["rank"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(
        -(-min(x.inputs, x.outputs) // r) * (r + min(x.inputs, x.outputs)) for x in chosen
    )


RANDLORA = Method(
    name="randlora",
    title="RandLoRA: scaled sums of random low-rank matrices",
    family="reparametrization",
    year=2025,
    citation="Albert et al. 2025, arXiv 2502.00987",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank",
            32,
            4,
            64,
            rule="smaller trains more: the sum is of full rank",
            source="RandLoRA paper",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
