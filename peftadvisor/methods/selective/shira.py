"""SHiRA: a sparse update of high rank (Bhardwaj et al. 2024, arXiv 2406.13175)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, merge, query_value_targets, task_type, wrap
from peftadvisor.methods.sites import layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Shira, on query and value by default.

    Which entries are trained becomes a buffer of each layer, so that it is saved and counted:
    PEFT keeps it in a plain dict.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    from peft import ShiraConfig
    from peft.tuners._buffer_dict import BufferDict

    config = ShiraConfig(
        task_type=task_type(model),
        target_modules=settings["target_modules"] or query_value_targets(model),
        r=rank(layout_of(model), settings),
    )
    config.mask_fn = _mask
    adapted = wrap(model, config)
    for layer in [m for m in adapted.modules() if hasattr(m, "shira_indices")]:
        layer.shira_indices = BufferDict(layer.shira_indices, persistent=True)
        if layer.weight.is_meta:
            layer.get_delta_weight = partial(_shape_of_change, layer)
    return adapted


def _mask(layer: Any, rank: int, **_: Any) -> Any:
    """r·(i + o) entries at random; on meta a mask of no other entries, as all count as nonzero."""
    import torch
    from peft.tuners.shira.mask_functions import random_mask

    if layer.weight.is_meta:
        return torch.ones(rank * sum(layer.weight.shape), 1)
    with torch.device("cpu"):  # where its generator is
        return random_mask(layer, rank)


def _shape_of_change(layer: Any, adapter: str) -> Any:
    """What PEFT's sparse tensor keeps for the backward pass; meta storages have no sparse kind."""
    import torch

    class Change(torch.autograd.Function):
        """Entries of a matrix: 64-bit indices and scaled values."""

        @staticmethod
        def forward(ctx: Any, values: Any, indices: Any) -> Any:
            ctx.save_for_backward(values, indices)
            return values.new_empty(()).expand(layer.out_features, layer.in_features)

        @staticmethod
        def backward(ctx: Any, *gradient: Any) -> Any:
            values, indices = ctx.saved_tensors
            kept = indices.clone()
            return gradient[0][kept[0], kept[1]] * torch.ones_like(values[:1]), None

    values = layer.shira_weight[adapter] * layer.scaling[adapter]
    return Change.apply(values, layer.shira_indices[adapter].long())


def rank(layout: Layout, settings: Settings) -> int:
    """The rank as set, but at most i·o / (i + o), where every weight is trained."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return min([settings["rank"], *(x.weights // (x.inputs + x.outputs) for x in chosen)])


def trainable(layout: Layout, settings: Settings) -> int:
    """As many entries as LoRA has parameters: r·(i + o)."""
    r = rank(layout, settings)
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(r * (x.inputs + x.outputs) for x in chosen)


SHIRA = Method(
    name="shira",
    title="SHiRA: a sparse update of high rank",
    family="selective",
    year=2024,
    citation="Bhardwaj et al. 2024, arXiv 2406.13175",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank",
            32,
            16,
            64,
            rule="as many numbers as LoRA of that rank; a learning rate of 3e-4",
            source="PEFT's method comparison",
        ),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
