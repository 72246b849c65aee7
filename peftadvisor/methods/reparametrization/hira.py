"""HiRA: a low-rank factor of the weights, element by element.

HiRA: Parameter-Efficient Hadamard High-Rank Adaptation, ICLR 2025.
"""

from __future__ import annotations

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.peft_backed import adapter, merge
from peftadvisor.methods.reparametrization import lora

HIRA = Method(
    name="hira",
    title="HiRA: a low-rank factor of the weights, element by element",
    family="reparametrization",
    year=2025,
    citation="HiRA: Parameter-Efficient Hadamard High-Rank Adaptation, ICLR 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter(
            "rank",
            32,
            16,
            64,
            rule="with a learning rate of 4.5e-3",
            source="PEFT's method comparison",
            shapes="linear",
        ),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("HiraConfig", r="rank"),
    trainable=lora.trainable,
    merge=merge,
    several=True,
)
