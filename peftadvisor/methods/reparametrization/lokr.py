"""LoKr: a Kronecker product, one factor of it of low rank (Yeh et al. 2023, arXiv 2309.14859).

With PEFT's defaults the two factors are near square, which is KronA with a rank on one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapter, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout, Linear


def trainable(layout: Layout, settings: Settings) -> int:
    """Widths o = o₁·o₂ and i = i₁·i₂: o₁·i₁, and o₂·i₂ or, if less than half, r·(o₂ + i₂)."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(_kronecker(x, settings["rank"], settings["factor"]) for x in chosen)


def _kronecker(linear: Linear, rank: int, factor: int) -> int:
    o1, o2 = split(linear.outputs, factor)
    i1, i2 = split(linear.inputs, factor)
    small = rank < max(o2, i2) / 2
    return o1 * i1 + (rank * (o2 + i2) if small else o2 * i2)


def split(width: int, factor: int) -> tuple[int, int]:
    """Two factors of a width, the smaller first: near square, or at most ``factor`` if not -1."""
    limit = width if factor == -1 else factor
    if factor > 0 and width % factor == 0:
        return min(factor, width // factor), max(factor, width // factor)
    small, large = 1, width
    for candidate in range(2, width + 1):
        if width % candidate:
            continue
        if candidate + width // candidate > small + large or candidate > limit:
            break
        small, large = candidate, width // candidate
    return min(small, large), max(small, large)


LOKR = Method(
    name="lokr",
    title="LoKr: a Kronecker product with one factor of low rank",
    family="reparametrization",
    year=2023,
    citation="Yeh et al. 2023, arXiv 2309.14859",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 64, source="PEFT defaults"),
        Hyperparameter("alpha", 8, 8, 64, source="PEFT defaults", shapes="none"),
        Hyperparameter("factor", -1, rule="-1 is near square", source="PEFT defaults"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("LoKrConfig", r="rank", alpha="alpha", decompose_factor="factor"),
    trainable=trainable,
    merge=merge,
    several=True,
)
