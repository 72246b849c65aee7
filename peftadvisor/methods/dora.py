"""DoRA: LoRA with the magnitude of each row trained apart (Liu et al. 2024, arXiv 2402.09353)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods import lora
from peftadvisor.methods.base import Method


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA with ``use_dora``."""
    return lora.attach(model, {**settings, "use_dora": True})


DORA = Method(
    name="dora",
    title="DoRA on query and value projections",
    family="reparametrization",
    citation="Liu et al. 2024, arXiv 2402.09353",
    defaults=lora.DEFAULTS,
    attach=attach,
    mergeable=True,
)
