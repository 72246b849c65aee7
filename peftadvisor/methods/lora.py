"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.methods.base import Method

CITATION = "Hu et al. 2021, arXiv 2106.09685"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA; ``target_modules`` None takes PEFT's default (q and v)."""
    from peft import LoraConfig, get_peft_model

    from peftadvisor.methods.roles import query_value_targets

    targets = settings["target_modules"] or query_value_targets(model)
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        use_dora=settings.get("use_dora", False),
        use_rslora=settings.get("use_rslora", False),
        target_modules=targets if targets == "all-linear" else list(targets),
        bias="none",
    )
    return get_peft_model(model, config)


DEFAULTS = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}

LORA = Method(
    name="lora",
    title="LoRA on query and value projections",
    family="reparametrization",
    citation=CITATION,
    defaults=DEFAULTS,
    attach=attach,
    rules=("R1", "R2"),
    mergeable=True,
)

LORA_ALL = Method(
    name="lora-all",
    title="LoRA on all linear layers",
    family="reparametrization",
    citation=CITATION,
    defaults={**DEFAULTS, "target_modules": "all-linear"},
    attach=attach,
    rules=("R1", "R2", "R9"),
    mergeable=True,
)
