"""DEFT: a projection taken out and another put in.

DEFT: decompositional efficient fine-tuning, 2025.
"""

from __future__ import annotations

from peftadvisor.methods.base import Axes, Hyperparameter, Method
from peftadvisor.methods.peft_backed import adapter, merge
from peftadvisor.methods.reparametrization import lora

DEFT = Method(
    name="deft",
    title="DEFT: a projection taken out and another put in",
    family="reparametrization",
    year=2025,
    citation="DEFT: decompositional efficient fine-tuning, 2025",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 64, shapes="linear"),
        Hyperparameter("target_modules", None),
    ),
    attach=adapter("DeftConfig", r="rank"),
    trainable=lora.trainable,
    merge=merge,
    several=True,
)
