"""X-LoRA: a gate that mixes trained LoRA experts for every token (arXiv 2402.07148).

Buehler and Buehler 2024. The gate reads the last hidden states of a first pass without experts,
so the base runs twice; the second pass weighs each expert's change by the gate. Experts are
frozen. Letters: n experts, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE, task_type, train_heads, wrap
from peftadvisor.methods.reparametrization import lora
from peftadvisor.methods.roles import hidden_size

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Wrap the model by PEFT's X-LoRA over the adapters named, or over random ones.

    Random experts have the memory and speed of trained ones, not their use.

    Raises:
        UnsupportedError: an encoder-decoder, a model of no text or without query and value
            projections, or gradient checkpointing (PEFT takes its hooks away before backward).
    """
    from peft import XLoraConfig

    if model.config.is_encoder_decoder or model.main_input_name != "input_ids":
        raise UnsupportedError(
            f"{type(model).__name__} has no single text, whose tokens X-LoRA weighs; use lora"
        )
    if getattr(model, "is_gradient_checkpointing", False):
        raise UnsupportedError(
            "X-LoRA forgets its gates before checkpointed layers run again; turn checkpointing off"
        )
    folders = settings["adapters"] or [""] * settings["experts"]
    config = XLoraConfig(
        task_type=task_type(model),
        hidden_size=hidden_size(model),
        adapters={str(number): folder for number, folder in enumerate(folders)},
        layerwise_scalings=settings["layerwise"],
    )
    expert = lora.lora_config(model, settings, init_lora_weights=False)
    model.config.use_cache, training = False, model.training
    if settings["adapters"]:
        wrapped = wrap(model, config)
    else:
        with patch("peft.tuners.xlora.model._load_adapter_into_lora_model", _random(expert)):
            wrapped = wrap(model, config)
    train_heads(model)
    return wrapped.train(training)


def _random(config: Any) -> Any:
    """What PEFT loads an expert by, but with random weights in place of a folder's."""

    def add(lora_model: Any, adapter_name: str, **_: Any) -> None:
        lora_model.peft_config[adapter_name] = config
        lora_model.inject_adapter(lora_model.model, adapter_name)
        lora_model._cast_adapter_dtype(adapter_name=adapter_name, autocast_adapter_dtype=True)

    return add


def trainable(layout: Layout, settings: Settings) -> int:
    """A gate of n·(d + 1), with ``layerwise`` that for each adapted layer; a head as a whole."""
    adapted = len(layout.targets(settings["target_modules"], QUERY_VALUE))
    copies = adapted if settings["layerwise"] else 1
    return layout.head + _experts(settings) * copies * (layout.hidden + 1)


def stored(layout: Layout, settings: Settings) -> int:
    """The gate and the experts, n·r·(in + out) per adapted layer."""
    factors = lora.trainable(layout, settings) - layout.head
    return trainable(layout, settings) + _experts(settings) * factors


def _experts(settings: Settings) -> int:
    return len(settings["adapters"] or ()) or int(settings["experts"])


X_LORA = Method(
    name="x-lora",
    title="X-LoRA: a gate over frozen LoRA experts",
    family="reparametrization",
    year=2024,
    citation="Buehler and Buehler 2024, arXiv 2402.07148",
    axes=Axes("yes", "yes", "no", "a second pass, and every expert", "derived"),
    hyperparameters=(
        Hyperparameter("experts", 4, 2, 16, rule="how many; random unless adapters are named"),
        Hyperparameter("adapters", None, rule="folders of LoRA adapters saved by PEFT"),
        Hyperparameter("layerwise", False, choices=(True, False), source="PEFT"),
        *(replace(p, rule=p.rule and f"of the experts: {p.rule}") for p in lora.HYPERPARAMETERS),
    ),
    attach=attach,
    trainable=trainable,
    stored=stored,
)
