"""Methods and hyperparameters of other tools in our words, by one table per method.

Every key of a row's ``method_config`` must be known: translated, or without influence on what a
step holds and computes at the values given. An unknown key leaves the row out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.data.measurements import Measurement
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.methods import find_method
from peftadvisor.specs import MethodSpec, ModelSpec

_LORA = {"r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}
_PROMPT = {"num_virtual_tokens": "virtual_tokens"}
_LOW_RANK = {"r": "rank"}

_SETTINGS: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("lora", "lora-all", "qlora", "dora", "rslora", "lora-fa"), _LORA),
    "adalora": {
        "target_r": "target_rank",
        "init_r": "init_rank",
        "deltaT": "interval",
        "lora_alpha": "alpha",
        "lora_dropout": "dropout",
    },
    "boft": {"boft_block_size": "block_size", "boft_n_butterfly_factor": "factors"},
    "fourierft": {"n_frequency": "frequencies"},
    "hra": _LOW_RANK,
    "loha": _LOW_RANK,
    "lokr": {"r": "rank", "decompose_factor": "factor"},
    "miss": {"r": "rank", "mini_r": "mini_rank", "init_weights": "variant"},
    "oft": {"oft_block_size": "block_size"},
    "p-tuning": {**_PROMPT, "encoder_hidden_size": "encoder_width"},
    "prefix-tuning": {**_PROMPT, "prefix_projection": "projection"},
    "prompt-tuning": _PROMPT,
    "randlora": _LOW_RANK,
    "shira": _LOW_RANK,
    "vera": _LOW_RANK,
}
"""PEFT's fields and our settings; one that PEFT names as we do needs no entry."""

ANY = object()
_Values = Mapping[str, tuple[Any, ...]]
_INERT: _Values = {
    "peft_type": (ANY,),
    "task_type": (ANY,),
    "bias": ("none",),
    "init_lora_weights": (True,),
    "init_weights": (True,),
    "qalora_group_size": (ANY,),  # of a variant that is asked for by another field
    "framework_config": (ANY,),  # published_sources reads it
}
"""Fields that change neither memory nor time, and at which values."""

_OF_THE_MODEL: _Values = dict.fromkeys(
    ("num_layers", "num_attention_heads", "num_transformer_submodules", "token_dim"), (ANY,)
)
_INERT_OF: Mapping[str, _Values] = {
    # its schedule; PEFT ignores r there, and rank_pattern is what the ranks came to
    "adalora": dict.fromkeys(
        ("beta1", "beta2", "orth_reg_weight", "r", "rank_pattern", "tfinal", "tinit", "total_step"),
        (ANY,),
    ),
    "dora": {"use_dora": (True,)},
    "ia3": {"init_ia3_weights": (ANY,)},
    "oft": {"eps": (ANY,), "use_cayley_neumann": (True,), "num_cayley_neumann_terms": (5,)},
    "prefix-tuning": {**_OF_THE_MODEL, "encoder_hidden_size": (ANY,), "init_weights": (ANY,)},
    "prompt-tuning": {**_OF_THE_MODEL, "prompt_tuning_init": (ANY,)},
    "randlora": {"randlora_alpha": (ANY,), "save_projection": (ANY,)},
    "rslora": {"use_rslora": (True,)},
    "vera": {"d_initial": (ANY,), "save_projection": (ANY,)},
}

_OWN_DEFAULTS = {"ia3": {"feedforward_modules": ("down_proj",)}}
"""What PEFT's tables say by themselves for models of Llama's kind: not worth spelling out."""

_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "query", "key", "value"})


def method_name(row: Measurement) -> str:
    """Our name of a row's method, or the row's own where we have none."""
    try:
        return find_method(row.method.replace("_", "-")).name
    except UnknownNameError:
        return row.method or "not stated"


def method_spec(row: Measurement, model: ModelSpec) -> MethodSpec:
    """The method of a row with its settings; what equals our defaults is left out, but the rank.

    Raises:
        UsageError: an unknown method, or a field that has no counterpart here.
    """
    name = method_name(row)
    try:
        method = find_method(name)
    except UnknownNameError:
        raise UsageError(f"method '{name}' is not here") from None
    names = {**{own: own for own in method.defaults}, **_SETTINGS.get(method.name, {})}
    settings: dict[str, Any] = {}
    for key, value in row.method_config.items():
        if key in names:
            settings[names[key]] = _value(names[key], value)
        elif method.name == "oft" and key == "r":
            settings["block_size"] = _block_size(value, row, model)
        elif not _is_inert(method.name, key, value):
            raise UsageError(f"{method.name} field '{key}' has no counterpart here")
    for key, value in settings.items():
        _check(key, value, method.defaults[key])
    own = _OWN_DEFAULTS.get(method.name, {})
    usual = {key: (value, own.get(key, value)) for key, value in method.defaults.items()}
    kept = {k: v for k, v in settings.items() if k == "rank" or v not in usual[k]}
    spec = MethodSpec(name=method.name).with_settings(**kept)
    method.settings(spec)
    return spec


def _check(setting: str, value: Any, default: Any) -> None:
    """A number where the default is one, and a rank of 1 or more."""
    number = isinstance(value, int | float)
    if isinstance(default, int | float) and not isinstance(default, bool) and not number:
        raise UsageError(f"setting '{setting}' is no number")
    if setting == "rank" and not (isinstance(value, int) and value >= 1):
        raise UsageError("setting 'rank' is no whole number of 1 or more")


def _is_inert(method: str, key: str, value: Any) -> bool:
    allowed = {**_INERT, **_INERT_OF.get(method, {})}.get(key, ())
    return ANY in allowed or value in allowed


def _value(setting: str, value: Any) -> Any:
    """As our specs hold it: sorted tuples of names, whole numbers as integers."""
    if value is None:
        return None
    if setting.endswith("_modules"):
        return _modules(value)
    value = tuple(value) if isinstance(value, list) else _number(value)
    try:
        hash(value)
    except TypeError:
        raise UsageError(f"setting '{setting}' is nested") from None
    return value


def _modules(value: Any) -> str | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise UsageError("target modules are neither names nor a text")
    return tuple(sorted(set(map(str, names))))


def _number(value: Any) -> Any:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _block_size(r: Any, row: Measurement, model: ModelSpec) -> int:
    """OFT's r is a number of blocks; all adapted layers must be as wide as the hidden states."""
    modules = _modules(row.method_config.get("target_modules") or ())
    width, blocks = model.config.get("hidden_size"), _number(r)
    known = isinstance(width, int) and isinstance(blocks, int) and blocks > 0
    if not (known and modules and set(modules) <= _ATTENTION):
        raise UsageError("oft field 'r' means blocks of several sizes here")
    return int(width // blocks)
