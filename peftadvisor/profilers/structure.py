"""Whether a live model is the one that is simulated: module by module, parameter by parameter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.simulator.step import prepare
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

_HARMLESS = frozenset(
    {
        *("alpha", "auto_mapping", "base_model_name_or_path", "bias", "delora_lambda"),
        *("inference_mode", "init_lora_weights", "lora_alpha", "peft_version", "revision"),
        *("projection_prng_key", "prompt_tuning_init", "prompt_tuning_init_text", "task_type"),
        *("tokenizer_name_or_path", "exclude_modules", "layers_pattern", "layers_to_transform"),
        *("modules_to_save", "alpha_pattern", "rank_pattern", "target_modules", "token_dim"),
        *("num_attention_heads", "num_layers", "num_transformer_submodules"),
    }
)
"""Fields of PEFT's configs that change numbers alone, or what is compared on the model itself."""


def require_same(live: Any, model: ModelSpec, method: MethodSpec, training: TrainingSpec) -> None:
    """Build the run on shapes alone and hold the live model against it.

    Modules must be of the same classes and run the forward of their class, parameters have the
    same shapes and dtypes and be both trained or both frozen, and PEFT's config say the same of
    what a step does. Of a quantized base, whose layers are the quantizer's own, only parameters
    with a fraction are compared.

    Raises:
        UsageError: the run cannot be built, or the first difference there is.
    """
    for name, module in live.named_modules():
        _require_own_forward(name, module)
    built: Any = prepare(model, method, training).model
    if training.quantization == "none":
        _compare(_classes(live), _classes(built))
    _compare(_parameters(live), _parameters(built))
    _compare(_options(live), _options(built))


def _require_own_forward(name: str, module: Any) -> None:
    """Refuse a forward set on the module itself, as TRL's trainers do; accelerate's keeps it."""
    own = vars(module)
    forward = own.get("_original_forward", own.get("forward"))
    function = getattr(forward, "__func__", forward)
    if forward is not None and function is not type(module).forward:
        source = getattr(function, "__globals__", {}).get("__name__", "something else")
        where = f"'{name}'" if name else "the model"
        raise UsageError(f"the forward of {where} is replaced, by {source}")


def _compare(there: Mapping[str, str], expected: Mapping[str, str]) -> None:
    for name in [*expected, *(name for name in there if name not in expected)]:
        mine, theirs = expected.get(name), there.get(name)
        if mine != theirs:
            where = f"'{name}'" if name else "the model itself"
            raise UsageError(
                f"{where} is {theirs or 'not there'}; what is simulated has {mine or 'none'}"
            )


def _options(model: Any) -> dict[str, str]:
    """The fields of PEFT's configs that decide what a step does."""
    found: dict[str, str] = {}
    for config in getattr(model, "peft_config", {}).values():
        for field in dataclasses.fields(config):
            if field.name not in _HARMLESS:
                value = getattr(config, field.name)
                plain = sorted(value) if isinstance(value, (set, frozenset)) else value
                found[field.name] = repr(list(plain) if isinstance(plain, tuple) else plain)
    return found


def _classes(model: Any) -> dict[str, str]:
    return {_name(model, name): type(module).__name__ for name, module in model.named_modules()}


def _parameters(model: Any) -> dict[str, str]:
    return {
        _name(model, name): f"{'x'.join(map(str, p.shape))} {str(p.dtype).removeprefix('torch.')}, "
        + ("trained" if p.requires_grad else "frozen")
        for name, p in model.named_parameters()
        if p.is_floating_point()
    }


def _name(model: Any, name: str) -> str:
    """A name with PEFT's own word for the adapter in place of the user's."""
    own = [adapter for adapter in getattr(model, "peft_config", {}) if adapter != "default"]
    return ".".join("default" if part in own else part for part in name.split(".")) if own else name
