"""BOFT: rotations in butterfly order (Liu et al. 2023, arXiv 2311.06243)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's BOFT, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    import torch
    from peft.tuners.boft.layer import BOFTLayer

    def no_values(_: Any, order: Any) -> Any:
        """A permutation matrix's shape, where there are no values to permute."""
        return order.new_zeros(len(order), len(order), dtype=torch.float32)

    meta = next(model.parameters()).is_meta
    with patch.object(BOFTLayer, "perm2mat", no_values) if meta else nullcontext():
        return adapt(
            model,
            "BOFTConfig",
            settings["target_modules"],
            boft_block_size=settings["block_size"],
            boft_n_butterfly_factor=settings["factors"],
        )


def trainable(layout: Layout, settings: Settings) -> int:
    """Butterfly factors of i / b blocks b × b, and a scale per output: m·i·b + o."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(
        settings["factors"] * x.inputs * settings["block_size"] + x.outputs for x in chosen
    )


BOFT = Method(
    name="boft",
    title="BOFT: rotations in butterfly order",
    family="reparametrization",
    year=2023,
    citation="Liu et al. 2023, arXiv 2311.06243",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("block_size", 4, 4, 8, source="PEFT defaults"),
        Hyperparameter(
            "factors", 1, 1, 2, rule="more make the rotation denser", source="BOFT paper"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
