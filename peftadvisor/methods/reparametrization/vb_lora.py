"""VB-LoRA: LoRA factors mixed from a bank of vectors (Li et al. 2024, arXiv 2405.15179)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, adapt, merge
from peftadvisor.methods.sites import common_divisor, layout_of

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Settings) -> Any:
    """Wrap the model by PEFT's VBLoRA, on query and value by default.

    Raises:
        UnsupportedError: PEFT refuses the model, or it has no such projections.
    """
    length = common_divisor(layout_of(model), settings["target_modules"], settings["length"])
    model = adapt(
        model,
        "VBLoRAConfig",
        settings["target_modules"],
        r=settings["rank"],
        num_vectors=settings["vectors"],
        vector_length=length,
    )
    if next(model.parameters()).is_meta:
        _leave_out_check(model)
    return model


def _leave_out_check(model: Any) -> None:
    """PEFT asks each forward pass for infinite logits, of a file saved for inference: no values."""
    from peft.tuners.vblora.layer import VBLoRALayer

    def matrices(layer: Any, *given: Any, **named: Any) -> Any:
        training, layer.training = layer.training, False
        try:
            return type(layer)._get_lora_matrices(layer, *given, **named)
        finally:
            layer.training = training

    for layer in [m for m in model.modules() if isinstance(m, VBLoRALayer)]:
        layer._get_lora_matrices = partial(matrices, layer)


def trainable(layout: Layout, settings: Settings) -> int:
    """H vectors of length v, and h logits per piece of each factor: hv + Σ hr·(i + o) / v."""
    h = settings["vectors"]
    length = common_divisor(layout, settings["target_modules"], settings["length"])
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return (
        layout.head
        + h * length
        + sum(h * settings["rank"] * (x.inputs + x.outputs) // length for x in chosen)
    )


VB_LORA = Method(
    name="vb-lora",
    title="VB-LoRA: LoRA factors mixed from a bank of vectors",
    family="reparametrization",
    year=2024,
    citation="Li et al. 2024, arXiv 2405.15179",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 4, 4, 16, source="PEFT defaults", shapes="linear"),
        Hyperparameter("vectors", 256, 90, 2048, source="VB-LoRA paper"),
        Hyperparameter(
            "length", 256, 64, 1024, rule="must divide all widths", source="VB-LoRA paper"
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge,
    several=True,
)
