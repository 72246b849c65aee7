"""OFT: block-diagonal rotations of the input (Qiu et al. 2023, arXiv 2306.07280)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.sites import common_divisor, layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's OFT, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    block = block_size(layout_of(model), settings)
    return adapt(model, "OFTConfig", settings["target_modules"], r=0, oft_block_size=block)


def trainable(layout: Layout, settings: Settings) -> int:
    """Blocks of size b, each a skew matrix: i / b · b·(b - 1) / 2."""
    block = block_size(layout, settings)
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.inputs * (block - 1) // 2 for x in chosen)


def block_size(layout: Layout, settings: Settings) -> int:
    """The largest size, up to the one set, that divides the inputs of all adapted layers."""
    wanted, named = settings["block_size"], settings["target_modules"]
    return common_divisor(layout, named, wanted, outputs=False)


OFT = Method(
    name="oft",
    title="OFT: block-diagonal rotations of the input",
    family="reparametrization",
    year=2023,
    citation="Qiu et al. 2023, arXiv 2306.07280",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "block_size", 32, 16, 64, rule="32; larger trains more", source="PEFT defaults"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
