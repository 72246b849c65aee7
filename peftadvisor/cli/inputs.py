"""Turn option values into specs; every complaint is a UsageError that names the option."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from peftadvisor.data.models import max_positions
from peftadvisor.errors import UsageError
from peftadvisor.integrations.lookup import gpu_spec, model_spec
from peftadvisor.specs import Budget, MethodSpec, ModelSpec, RunSpec, TrainingSpec

if TYPE_CHECKING:
    from peftadvisor.methods.base import Method

Values = Mapping[str, Any]

_USUAL_SEQ_LEN = 512
# One option each; any other hyperparameter comes by --set.
_NAMED_SETTINGS = ("rank", "alpha", "dropout", "target_modules")


def method_spec(values: Values) -> MethodSpec:
    """The method with the hyperparameters that the user changed.

    Raises:
        UsageError: no such method, no such hyperparameter, or one given twice.
    """
    from peftadvisor.methods import find_method

    method = find_method(values["method"])
    settings = {key: values[key] for key in _NAMED_SETTINGS if values[key] is not None}
    if "target_modules" in settings:
        settings["target_modules"] = _target_modules(settings["target_modules"])
    if "alpha" in settings and settings["alpha"].is_integer():
        settings["alpha"] = int(settings["alpha"])
    for text in values["set_"]:
        key, value = _setting(text)
        if key in settings:
            raise UsageError(f"setting '{key}' is given twice; keep one of them")
        settings[key] = value
    spec = MethodSpec(name=method.name).with_settings(**settings)
    method.settings(spec)
    _check_kinds(method, settings)
    return spec


_LEVERS = ("loss", "loop", "transformers", "kbit_preparation")
"""Settings that have the same name in the command and in TrainingSpec."""


def training_spec(values: Values, model: ModelSpec) -> TrainingSpec:
    """How the run trains; what a command does not offer keeps its default.

    Raises:
        UsageError: the lengths exceed what the model has positions for.
    """
    return TrainingSpec(
        micro_batch_size=values.get("batch_size", 1),
        gradient_accumulation_steps=values.get("grad_accum", 1),
        seq_len=_seq_len(values["seq_len"], model),
        target_len=values["target_len"],
        padded=values["padded"],
        dtype=values["dtype"],
        amp=values["amp"],
        quantization=values.get("quantization") or "none",
        optimizer=values.get("optimizer") or "adamw",
        gradient_checkpointing=values.get("gradient_checkpointing") or "none",
        attention=values["attention"],
        **{name: values[name] for name in _LEVERS if name in values},
    )


def run_spec(values: Values) -> RunSpec:
    """The one run that the options of ``estimate`` describe.

    Raises:
        UsageError: any of its parts is wrong.
    """
    method = method_spec(values)
    gpu = gpu_spec(values["gpu"], values["gpu_memory"])
    model = model_spec(values["model"])
    return RunSpec(
        model=model,
        method=method,
        training=training_spec({**values, **implied(method, values)}, model),
        gpu=gpu,
        gpus=values["gpus"],
        sharding=values["sharding"],
        expandable_segments=values["expandable_segments"],
    )


def run_of(values: Values, method: str) -> RunSpec:
    """The run of a method at its defaults, for those that are set side by side.

    Raises:
        UsageError: any of its parts is wrong.
    """
    model = model_spec(values["model"])
    return RunSpec(
        model=model,
        method=MethodSpec(name=method),
        training=training_spec(values, model),
        gpu=gpu_spec(values["gpu"], values["gpu_memory"]),
        gpus=values["gpus"],
        sharding=values["sharding"],
        expandable_segments=values["expandable_segments"],
    )


def implied(method: MethodSpec, values: Values) -> dict[str, Any]:
    """The quantization that is asked for, else the one that the method brings along."""
    from peftadvisor.methods import find_method

    return {"quantization": values["quantization"] or find_method(method.name).quantization}


def budget(values: Values) -> Budget:
    """The size of the job and the accepted risk."""
    return Budget(total_tokens=values["tokens"], max_oom_risk=values["max_risk"])


def method_names(text: str | None) -> tuple[str, ...] | None:
    """The methods that ``--methods A,B`` names, ``ALL``, or None for those in common use.

    Raises:
        UsageError: an unknown name, or none at all.
    """
    if text is None:
        return None
    from peftadvisor.advisor.question import ALL
    from peftadvisor.methods import find_method

    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if tuple(names) == ALL:
        return ALL
    if not names:
        raise UsageError("--methods names no method; write them like lora,ia3")
    return tuple(find_method(name).name for name in names)


def _seq_len(asked: int | None, model: ModelSpec) -> int:
    limit = max_positions(model)
    if asked is None:
        return min(_USUAL_SEQ_LEN, limit or _USUAL_SEQ_LEN)
    if limit is not None and asked > limit:
        raise UsageError(f"--seq-len {asked} is beyond the {limit} positions of {model.id}")
    return asked


def _target_modules(text: str) -> str | tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--target-modules names no module; write them like q_proj,v_proj")
    return "all-linear" if names == ("all-linear",) else names


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        raise UsageError(f"--set '{text}' is not of the form KEY=VALUE")
    return key.strip(), _typed(value)


def _typed(text: str) -> Any:
    """JSON where it parses, else the text itself; lists become tuples, so that specs hash."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    ):
        raise UsageError(f"--set value '{text}' is nested; a setting is one value or a flat list")
    return tuple(value) if isinstance(value, list) else value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _check_kinds(method: Method, settings: Values) -> None:
    """A value must be of the kind of its default; None says nothing about the kind."""
    for key, value in settings.items():
        kind = _kind(key, method.defaults[key])
        if kind is not None and not _KINDS[kind](value):
            raise UsageError(f"{method.name} setting '{key}' is {value!r}; it must be {kind}")


def _kind(key: str, default: Any) -> str | None:
    if key in ("rank", "dropout"):
        return "a whole number of 1 or more" if key == "rank" else "a number from 0 to 1"
    if isinstance(default, bool):
        return "true or false"
    return "a number of 0 or more" if isinstance(default, int | float) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "true or false": lambda value: isinstance(value, bool),
    "a number from 0 to 1": lambda value: _is_number(value) and value <= 1,
    "a number of 0 or more": _is_number,
    "a whole number of 1 or more": lambda value: _is_number(value) and value in range(1, 10**6 + 1),
}
