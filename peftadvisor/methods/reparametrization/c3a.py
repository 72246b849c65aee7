"""C³A: block-circular convolutions (Chen et al. 2024, arXiv 2407.19342)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.sites import common_divisor, layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's C3A, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    block = common_divisor(layout_of(model), settings["target_modules"], settings["block_size"])
    return adapt(model, "C3AConfig", settings["target_modules"], block_size=block)


def trainable(layout: Layout, settings: Settings) -> int:
    """One circulant kernel per block b × b: i·o / b."""
    block = common_divisor(layout, settings["target_modules"], settings["block_size"])
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.weights // block for x in chosen)


C3A = Method(
    name="c3a",
    title="C³A: block-circular convolutions",
    family="reparametrization",
    year=2024,
    citation="Chen et al. 2024, arXiv 2407.19342",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "block_size",
            256,
            64,
            1024,
            rule="must divide all widths; with learning rates of 0.1 to 0.3",
            source="C3A paper; PEFT's method comparison",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
