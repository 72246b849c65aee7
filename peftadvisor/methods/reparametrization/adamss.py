"""AdaMSS: subspaces of clustered rows.

AdaMSS: Adaptive Multi-Subspace Approach, NeurIPS 2025.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's AdaMSS, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    made = partial(
        adapt,
        model,
        "AdamssConfig",
        settings["target_modules"],
        r=settings["rank"],
        num_subspaces=settings["subspaces"],
        subspace_rank=settings["subspace_rank"],
    )
    if not next(model.parameters()).is_meta:
        return made()
    with patch("peft.tuners.adamss.layer.clustering_Z", _in_turn):
        return made()


def _in_turn(rows: Any, clusters: int, _: int) -> Any:
    """Clusters of equal size, in place of those that values would tell."""
    import torch

    found = min(clusters, len(rows))
    return torch.arange(len(rows), device="cpu") % found, found


def trainable(layout: Layout, settings: Settings) -> int:
    """K clusters of the o rows: an A of s·r each, and s numbers per row."""
    s, k = settings["subspace_rank"], settings["subspaces"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    ranks = [min(settings["rank"], x.outputs, x.inputs + x.bias) for x in chosen]
    return layout.head + sum(s * (k * r + x.outputs) for r, x in zip(ranks, chosen, strict=True))


ADAMSS = Method(
    name="adamss",
    title="AdaMSS: subspaces of clustered rows",
    family="reparametrization",
    year=2025,
    citation="AdaMSS: Adaptive Multi-Subspace Approach, NeurIPS 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 100, 50, 500, rule="directions of the decomposition", source="PEFT defaults"
        ),
        Hyperparameter("subspaces", 5, 5, 10, rule="clusters of rows", source="PEFT defaults"),
        Hyperparameter("subspace_rank", 1, 1, 4, source="PEFT defaults"),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
