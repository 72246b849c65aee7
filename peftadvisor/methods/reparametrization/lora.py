"""LoRA: low-rank updates beside frozen linear layers (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import (
    QUERY_VALUE,
    merge,
    query_value_targets,
    task_type,
    wrap,
)
from peftadvisor.methods.roles import is_linear, is_mamba

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

CITATION = "Hu et al. 2021, arXiv 2106.09685"


def attach(model: Any, settings: Mapping[str, Any], **options: Any) -> Any:
    """Wrap the model by PEFT's LoRA; adapters of a 16-bit base are fp32, as PEFT makes them.

    ``target_modules`` None takes PEFT's table (query and value), else finds them by role. A
    quantized base says by ``lora_layers`` how its layers are wrapped. ``options`` are further
    fields of PEFT's LoraConfig, for variants of LoRA.
    """
    return wrap(model, lora_config(model, settings, **options))


def lora_config(model: Any, settings: Mapping[str, Any], **options: Any) -> Any:
    """PEFT's LoraConfig for ``attach``.

    Raises:
        UnsupportedError: no target modules are named, and the model has no such projections.
    """
    from peft import LoraConfig

    config = LoraConfig(
        task_type=task_type(model),
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        use_dora=settings.get("use_dora", False),
        target_modules=settings["target_modules"] or query_value_targets(model),
        exclude_modules=refused_modules(model),
        bias="none",
        **options,
    )
    custom = getattr(model, "lora_layers", None)
    if custom:
        config._register_custom_module(custom)
    return config


def refused_modules(model: Any) -> list[str] | None:
    """Names that must not be wrapped, or None.

    PEFT refuses some in models with Mamba layers, whose kernels read the weights; and a router
    that is a linear layer but returns two tensors (Llama 4) breaks PEFT's forward.
    """
    names = {"out_proj", "conv1d"} if any(map(is_mamba, model.modules())) else set()
    for path, module in model.named_modules():
        if is_linear(module) and "router" in type(module).__name__.lower():
            names.add(path.rpartition(".")[2])
    return sorted(names) or None


def trainable(layout: Layout, settings: Settings) -> int:
    """Two factors per adapted layer, r·(in + out); a classification head as a whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    return layout.head + sum(settings["rank"] * (x.inputs + x.outputs) for x in chosen)


HYPERPARAMETERS = (
    Hyperparameter(
        "rank",
        8,
        8,
        64,
        rule="8 by default; more for larger data; no new learning rate needed while alpha is fixed",
        source="PEFT defaults; Thinking Machines, LoRA Without Regret, 2025",
        shapes="linear",
    ),
    Hyperparameter(
        "alpha", 16, 16, 32, rule="twice the rank, or 32", source="LLaMA-Factory", shapes="none"
    ),
    Hyperparameter(
        "dropout",
        0.0,
        0.0,
        0.1,
        rule="0; 0.05 for small data",
        source="PEFT; axolotl",
        shapes="zero",
    ),
    Hyperparameter(
        "target_modules",
        None,
        rule="all linear layers matter more than rank; the MLP most",
        source="LoRA Without Regret, 2025",
    ),
)
AXES = Axes("yes", "yes", "no", "none", "recalled")

LORA = Method(
    name="lora",
    title="LoRA on query and value projections",
    family="reparametrization",
    year=2021,
    citation=CITATION,
    axes=AXES,
    hyperparameters=HYPERPARAMETERS,
    attach=attach,
    trainable=trainable,
    merge=merge,
    rules=("R1", "R2", "R18"),
    quantized_base=True,
    several=True,
)

ALL_LINEAR = tuple(
    replace(parameter, default="all-linear") if parameter.name == "target_modules" else parameter
    for parameter in HYPERPARAMETERS
)
LORA_ALL = Method(
    name="lora-all",
    title="LoRA on all linear layers",
    family="reparametrization",
    year=2021,
    citation=CITATION,
    axes=AXES,
    hyperparameters=ALL_LINEAR,
    attach=attach,
    trainable=trainable,
    merge=merge,
    rules=("R1", "R2", "R9", "R18"),
    quantized_base=True,
    several=True,
)
