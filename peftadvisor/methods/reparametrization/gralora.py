"""GraLoRA: LoRA in blocks (Jung et al. 2025, arXiv 2505.20355)."""

from __future__ import annotations

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.peft_backed import adapter, merge
from peftadvisor.methods.reparametrization import lora

GRALORA = Method(
    name="gralora",
    title="GraLoRA: LoRA in blocks",
    family="reparametrization",
    year=2025,
    citation="Jung et al. 2025, arXiv 2505.20355",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank", 32, 32, 128, rule="a multiple of the blocks", source="PEFT's method comparison"
        ),
        Hyperparameter(
            "alpha", 64, 32, 128, rule="twice the rank", source="PEFT defaults", shapes="none"
        ),
        Hyperparameter("blocks", 2, 2, 4, rule="2, or 4 from rank 64 on", source="GraLoRA paper"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("GraloraConfig", r="rank", alpha="alpha", gralora_k="blocks"),
    trainable=lora.trainable,
    merge=merge,
    quantized_base=True,
    several=True,
)
