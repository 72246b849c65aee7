"""Poly: a router mixes an inventory of LoRA modules (Ponti et al. 2022, arXiv 2202.13914)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Poly, on query and value by default; inputs are of task 0.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    adapted = adapt(
        model,
        "PolyConfig",
        settings["target_modules"],
        r=settings["rank"],
        n_tasks=settings["tasks"],
        n_skills=settings["skills"],
        n_splits=settings["splits"],
    )
    for layer in [m for m in adapted.modules() if hasattr(m, "poly_router")]:
        layer.register_forward_pre_hook(_first_task, with_kwargs=True)
    return adapted


def _first_task(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """PEFT wants the task of each example with every call; where nobody says, it is the first."""
    import torch

    given = named.get("task_ids")
    tasks = torch.zeros(len(inputs[0]), dtype=torch.long, device="cpu") if given is None else given
    return inputs, {**named, "task_ids": tasks}


def trainable(layout: Layout, settings: Settings) -> int:
    """K modules of r·(i + o) per layer, and a logit per task, split and module."""
    r, k = settings["rank"], settings["skills"]
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    logits = settings["tasks"] * settings["splits"] * k
    return layout.head + sum(k * r * (x.inputs + x.outputs) + logits for x in chosen)


POLY = Method(
    name="poly",
    title="Poly: a router mixes an inventory of LoRA modules",
    family="reparametrization",
    year=2022,
    citation="Ponti et al. 2022, arXiv 2202.13914",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 32, source="PEFT defaults", shapes="linear"),
        Hyperparameter("tasks", 1, 1, 100, source="PEFT defaults"),
        Hyperparameter("skills", 4, 2, 16, rule="modules in the inventory", source="PEFT defaults"),
        Hyperparameter(
            "splits",
            1,
            1,
            8,
            rule="more than 1 is multi-head routing; must divide the widths",
            source="PEFT defaults",
        ),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
)
