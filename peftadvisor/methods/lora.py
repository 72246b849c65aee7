"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.methods.peft_backed import known_targets, task_type, wrap
from peftadvisor.methods.roles import is_linear, is_mamba, projection_names, targets

CITATION = "Hu et al. 2021, arXiv 2106.09685"


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's LoRA; adapters of a 16-bit base are fp32, as PEFT makes them.

    ``target_modules`` None takes PEFT's table (query and value), else finds them by role. A
    quantized base says by ``lora_layers`` how its layers are wrapped.
    """
    from peft import LoraConfig

    config = LoraConfig(
        task_type=task_type(model),
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        use_dora=settings.get("use_dora", False),
        target_modules=settings["target_modules"] or query_value_targets(model),
        exclude_modules=_refused_modules(model),
        bias="none",
    )
    custom = getattr(model, "lora_layers", None)
    if custom:
        config._register_custom_module(custom)
    return wrap(model, config)


def _refused_modules(model: Any) -> list[str] | None:
    """Names that must not be wrapped, or None.

    PEFT refuses some in models with Mamba layers, whose kernels read the weights; and a router
    that is a linear layer but returns two tensors (Llama 4) breaks PEFT's forward.
    """
    names = {"out_proj", "conv1d"} if any(map(is_mamba, model.modules())) else set()
    for path, module in model.named_modules():
        if is_linear(module) and "router" in type(module).__name__.lower():
            names.add(path.rpartition(".")[2])
    return sorted(names) or None


def query_value_targets(model: Any) -> Any:
    """Names of the query and value projections.

    Raises:
        UnsupportedError: the model has no projections of these roles.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TABLE

    known = known_targets(TABLE, model)
    if known:
        return known
    names = projection_names(model, "qv")
    if not names:
        raise UnsupportedError(
            f"{type(model).__name__} has no query and value projections that LoRA knows; "
            "name layers by --target-modules"
        )
    return targets(model, names)


DEFAULTS = {"rank": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}

LORA = Method(
    name="lora",
    title="LoRA on query and value projections",
    family="reparametrization",
    citation=CITATION,
    defaults=DEFAULTS,
    attach=attach,
    rules=("R1", "R2", "R18"),
    mergeable=True,
)

LORA_ALL = Method(
    name="lora-all",
    title="LoRA on all linear layers",
    family="reparametrization",
    citation=CITATION,
    defaults={**DEFAULTS, "target_modules": "all-linear"},
    attach=attach,
    rules=("R1", "R2", "R9", "R18"),
    mergeable=True,
)
