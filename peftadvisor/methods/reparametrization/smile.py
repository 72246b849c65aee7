"""SMILE: low-rank experts cut from fine-tuned checkpoints (Tang et al. 2024, arXiv 2408.10174)."""

from __future__ import annotations

from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Method, Settings

NEEDS = (
    "it trains nothing; it cuts low-rank experts out of several fine-tuned checkpoints of one "
    "base model, which have to be there; x-lora trains a mixture of LoRA experts"
)


def attach(model: Any, _: Settings) -> Any:
    """Refuse: there are no checkpoints to make experts of.

    Raises:
        UnsupportedError: always.
    """
    raise UnsupportedError(f"smile cannot be run on {type(model).__name__}: {NEEDS}")


SMILE = Method(
    name="smile",
    title="SMILE: experts from fine-tuned checkpoints",
    family="reparametrization",
    year=2024,
    citation="Tang et al. 2024, arXiv 2408.10174",
    axes=Axes("no", "yes", "yes", "router and experts", "derived"),
    attach=attach,
    trainable=lambda _layout, _settings: 0,
    unavailable=NEEDS,
)
