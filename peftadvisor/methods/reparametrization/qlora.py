"""QLoRA: LoRA on all linear layers of a 4-bit base (Dettmers et al. 2023, arXiv 2305.14314)."""

from __future__ import annotations

from peftadvisor.methods.base import Method
from peftadvisor.methods.reparametrization.lora import ALL_LINEAR, AXES, attach, trainable

QLORA = Method(
    name="qlora",
    title="QLoRA: nf4 base with double quantization, LoRA on all linear layers",
    family="reparametrization",
    year=2023,
    citation="Dettmers et al. 2023, arXiv 2305.14314",
    axes=AXES,
    hyperparameters=ALL_LINEAR,
    attach=attach,
    trainable=trainable,
    rules=("R1", "R9", "R20"),
    quantization="nf4-dq",
    quantized_base=True,
    several=True,
)
