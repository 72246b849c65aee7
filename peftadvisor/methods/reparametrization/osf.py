"""OSF: training within the small singular directions (Nayak et al. 2025, arXiv 2504.07097)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout, Linear


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's OSF, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    kept = settings["kept"]
    adapted = adapt(model, "OSFConfig", settings["target_modules"], effective_rank=kept)
    for layer in [m for m in adapted.modules() if hasattr(m, "osf_svd_params")]:
        for name, part in layer.osf_svd_params.items():  # views of all of V, if row-major
            part["V_low"].data = part["V_low"].data.clone()
            if name in layer._osf_V_high:
                layer._osf_V_high[name] = layer._osf_V_high[name].clone()
    return adapted


def trainable(layout: Layout, settings: Settings) -> int:
    """Of m = min(i, o) directions the last m - k: (i + o + 1) numbers each; k None is half."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(free(x, settings) * (x.inputs + x.outputs + 1) for x in chosen)


def free(linear: Linear, settings: Settings) -> int:
    """Directions that are trained: those but the largest k."""
    smaller = min(linear.inputs, linear.outputs)
    kept = smaller // 2 if settings["kept"] is None else settings["kept"]
    return max(0, smaller - kept)


OSF = Method(
    name="osf",
    title="OSF: training within the small singular directions",
    family="reparametrization",
    year=2025,
    citation="Nayak et al. 2025, arXiv 2504.07097",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "kept",
            None,
            rule="singular directions kept frozen; half by default",
            source="PEFT defaults",
        ),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
)
