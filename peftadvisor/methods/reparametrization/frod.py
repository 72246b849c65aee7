"""FRoD: each weight in a basis shared by its kind, with a trained sparse rotation.

Full-Rank Efficient Fine-Tuning with Rotational Degrees, AAAI 2026, doi 10.1609/aaai.v40i31.39813.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.reparametrization.frod_shapes import (
    all_on_meta,
    entries,
    shapes_of_bases,
    shapes_of_factors,
)

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's Frod, on query and value by default.

    PEFT decomposes on the CPU and leaves the bases there; here they move to the model's device.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    import torch
    from peft.tuners.frod.layer import FrodLayer
    from peft.tuners.frod.model import FrodModel

    device = next(model.parameters()).device
    real = FrodModel._init_frod_projections

    def on_cpu(*given: Any) -> None:
        with torch.device("cpu"):
            real(*given)

    with ExitStack() as stack:
        made = shapes_of_bases if device.type == "meta" else on_cpu
        stack.enter_context(patch.object(FrodModel, "_init_frod_projections", made))
        if device.type == "meta":
            name = "_calculate_frod_u_and_lambda"
            stack.enter_context(patch.object(FrodLayer, name, shapes_of_factors))
        adapted = adapt(
            model,
            "FrodConfig",
            settings["target_modules"],
            sparse_rate=settings["density"],
            progressbar=False,
        )
    if device.type != "meta":
        return adapted.to(device)
    return all_on_meta(adapted)


def trainable(layout: Layout, settings: Settings) -> int:
    """A scale per direction and the sparse entries of a rotation: d + p·d², d inputs."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(x.inputs + entries(x.inputs, settings["density"]) for x in chosen)


FROD = Method(
    name="frod",
    title="FRoD: scales and a sparse rotation in a shared basis",
    family="reparametrization",
    year=2026,
    citation="Full-Rank Efficient Fine-Tuning with Rotational Degrees, AAAI 2026",
    axes=Axes("yes", "maybe", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "density",
            0.01,
            0.001,
            0.05,
            rule="part of the rotation's entries that is trained",
            source="PEFT defaults",
        ),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
