"""What the methods that HF PEFT implements share: task types, devices, one-line refusals."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Attach, Settings
from peftadvisor.methods.roles import projection_names, targets

QUERY_VALUE = "q v qkv"
"""Roles of the layers that most variants of LoRA adapt; PEFT's table may name others."""

_TASKS: Mapping[str, str] = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
}


def task_type(model: Any) -> str | None:
    """PEFT's name of the model's task, or None where PEFT has no class of its own for it."""
    name = type(model).__name__
    if name.endswith("ForConditionalGeneration") and hasattr(model.config, "text_config"):
        return "CAUSAL_LM"
    if model.config.is_encoder_decoder and model.main_input_name == "input_ids":
        return "SEQ_2_SEQ_LM"
    return next((task for end, task in _TASKS.items() if name.endswith(end)), None)


def heads(model: Any) -> list[Any]:
    """The heads that PEFT trains whole: those of sequence classification, found by name endings."""
    from peft.utils.constants import SEQ_CLS_HEAD_NAMES

    if task_type(model) != "SEQ_CLS":
        return []
    ends = tuple(SEQ_CLS_HEAD_NAMES)
    return [module for name, module in model.named_children() if name.endswith(ends)]


def train_heads(model: Any) -> Any:
    """Train the heads that PEFT trains whole. The model."""
    for module in heads(model):
        module.requires_grad_(True)
    return model


def known_targets(table: Mapping[str, Any], model_type: str) -> Any:
    """The names that one of PEFT's tables holds for this model type, or None."""
    known = table.get(model_type)
    return known if known is None or isinstance(known, str) else list(known)


def known_query_value(model_type: str) -> Any:
    """PEFT's own targets of LoRA for this model type, or None: query and value, seldom others."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TABLE

    return known_targets(TABLE, model_type)


def query_value_targets(model: Any) -> Any:
    """Names of the query and value projections.

    Raises:
        UnsupportedError: the model has no projections of these roles.
    """
    known = known_query_value(model.config.model_type)
    if known:
        return known
    names = projection_names(model, "qv")
    if not names:
        raise UnsupportedError(
            f"{type(model).__name__} has no query and value projections that LoRA knows; "
            "name layers by --target-modules"
        )
    return targets(model, names)


REFUSALS = (ValueError, TypeError, NotImplementedError, AttributeError, KeyError)
"""What PEFT raises on a model that it does not take."""


def reason_of(error: Exception) -> str:
    """What an error of PEFT says, in one line."""
    return " ".join(str(error).split())[:200]


def wrap(model: Any, config: Any) -> Any:
    """``get_peft_model`` on the model's own device.

    Raises:
        UnsupportedError: PEFT refuses the combination; its reason in one line.
    """
    import torch
    from peft import get_peft_model

    device = next(model.parameters()).device
    try:
        with torch.device(device), shapes_only():
            return get_peft_model(model, config)
    except REFUSALS as error:
        reason = reason_of(error)
        raise UnsupportedError(
            f"{type(model).__name__} cannot take {config.peft_type.value.lower()}: {reason}"
        ) from error


def shapes_only() -> AbstractContextManager[None]:
    """Where a size depends on values, as that of a mask's indices, take all for nonzero on meta."""
    from torch.fx.experimental import _config

    everything = _config.patch(meta_nonzero_assume_all_nonzero=True)  # type: ignore[attr-defined]
    return cast(AbstractContextManager[None], everything)


def merge(model: Any) -> Any:
    """The plain model with PEFT's adapters folded into its weights."""
    return model.merge_and_unload()


def adapt(model: Any, config_class: str, target_modules: Any, **fields: Any) -> Any:
    """Wrap the model by a PEFT tuner on these modules; None stands for query and value.

    Raises:
        UnsupportedError: PEFT refuses the combination, or there are no such modules.
    """
    import peft

    targets = target_modules or query_value_targets(model)
    config = getattr(peft, config_class)
    return wrap(model, config(task_type=task_type(model), target_modules=targets, **fields))


def adapter(config_class: str, **names: str) -> Attach:
    """An ``attach`` by a PEFT tuner: each field of its config from the setting of that name."""

    def attach(model: Any, settings: Settings) -> Any:
        fields = {field: settings[name] for field, name in names.items()}
        return adapt(model, config_class, settings["target_modules"], **fields)

    return attach
