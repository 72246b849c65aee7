"""The method of a live model: PEFT's config, or what is trained, as one of ours.

Fields that are not read here (layers left out, other ranks for some, modules trained beside) are
no danger: what the method found makes of the model is held against the model (``structure``), and
its config against the live one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.methods.peft_backed import known_query_value
from peftadvisor.specs import MethodSpec

_MODULES = ("target_modules", "feedforward_modules")


def _lora_name(config: Any) -> str:
    return "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of PEFT's types: our name for it, and our settings with the fields they are read from."""

    name: str | Callable[[Any], str]
    fields: Mapping[str, str]

    def spec(self, config: Any, model_type: str) -> MethodSpec:
        name = self.name if isinstance(self.name, str) else self.name(config)
        read = {ours: getattr(config, theirs) for ours, theirs in self.fields.items()}
        settings = {ours: _plain(ours, value, model_type) for ours, value in read.items()}
        return MethodSpec(name=name).with_settings(
            **{ours: value for ours, value in settings.items() if value is not None}
        )


_TARGETS = {"target_modules": "target_modules"}
_RANK = {"rank": "r", **_TARGETS}
_KINDS: Mapping[str, _Kind] = {
    "LORA": _Kind(_lora_name, {"alpha": "lora_alpha", "dropout": "lora_dropout", **_RANK}),
    "LOHA": _Kind("loha", {"alpha": "alpha", **_RANK}),
    "LOKR": _Kind("lokr", {"alpha": "alpha", "factor": "decompose_factor", **_RANK}),
    "VERA": _Kind("vera", _RANK),
    "PVERA": _Kind("pvera", _RANK),
    "HRA": _Kind("hra", _RANK),
    "HIRA": _Kind("hira", _RANK),
    "DELORA": _Kind("delora", {"strength": "delora_lambda", **_RANK}),
    "GRALORA": _Kind("gralora", {"alpha": "alpha", "blocks": "gralora_k", **_RANK}),
    "MISS": _Kind("miss", {"variant": "init_weights", "mini_rank": "mini_r", **_RANK}),
    "IA3": _Kind("ia3", {"feedforward_modules": "feedforward_modules", **_TARGETS}),
    "LN_TUNING": _Kind("ln-tuning", _TARGETS),
    "PROMPT_TUNING": _Kind("prompt-tuning", {"virtual_tokens": "num_virtual_tokens"}),
    "PREFIX_TUNING": _Kind(
        "prefix-tuning",
        {"virtual_tokens": "num_virtual_tokens", "projection": "prefix_projection"},
    ),
    "P_TUNING": _Kind(
        "p-tuning",
        {"virtual_tokens": "num_virtual_tokens", "encoder_width": "encoder_hidden_size"},
    ),
}


def method_in(model: Any) -> MethodSpec:
    """The method that a live model trains by, with all its settings.

    Raises:
        UsageError: it is none that is known here.
    """
    configs = getattr(model, "peft_config", None)
    if not configs:
        return _without_peft(model)
    if len(configs) > 1:
        raise UsageError(f"the model holds {len(configs)} adapters ({', '.join(configs)})")
    (config,) = configs.values()
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind not in _KINDS:
        raise UsageError(f"PEFT's {kind} is read off no live model; known: {', '.join(_KINDS)}")
    return _KINDS[kind].spec(config, model.get_base_model().config.model_type)


def _without_peft(model: Any) -> MethodSpec:
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    if frozen:
        raise UsageError(
            f"{len(frozen)} of the model's own parameters are frozen ({frozen[0]}, …) by no "
            "method of PEFT"
        )
    return MethodSpec(name="full")


def _plain(name: str, value: Any, model_type: str) -> Any:
    """A value as specs hold it; None stands for PEFT's own targets, as recordings name them."""
    if name not in _MODULES or value is None or isinstance(value, str):
        return value
    if name == "target_modules" and set(value) == set(known_query_value(model_type) or ()):
        return None
    return tuple(sorted(value))
