"""LN tuning: only the normalization layers are trained (Qi et al. 2022, arXiv 2211.08682)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.peft_backed import merge, task_type, wrap
from peftadvisor.methods.roles import norm_names


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LN tuning, on every normalization layer with weights.

    Raises:
        UnsupportedError: the model has none.
    """
    from peft import LNTuningConfig

    targets = settings["target_modules"] or norm_names(model)
    if not targets:
        raise UnsupportedError(f"{type(model).__name__} has no normalization layers with weights")
    return wrap(model, LNTuningConfig(task_type=task_type(model), target_modules=list(targets)))


LN_TUNING = Method(
    name="ln-tuning",
    title="LN tuning: normalization layers only",
    family="selective",
    year=2022,
    citation="Qi et al. 2022, arXiv 2211.08682",
    axes=Axes("yes", "yes", "no", "none", "recalled"),
    hyperparameters=(Hyperparameter("target_modules", None),),
    attach=attach,
    trainable=lambda layout, _: layout.norms + layout.head,
    merge=merge,
    rules=("R4",),
    quantized_base=True,
)
