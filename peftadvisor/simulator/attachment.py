"""How a method sits on a model, as a script would write it: PEFT's config, or what is trained.

The method is attached to the real modules on the meta device and watched: the config that reaches
PEFT is the one that the estimate's recording was made with.
"""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any
from unittest.mock import patch

from peftadvisor.methods.sites import sites
from peftadvisor.simulator.batches import task_of
from peftadvisor.simulator.step import Prepared, prepare
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

_BOOKKEEPING = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "peft_type",
        "peft_version",
        "revision",
    }
)
"""Fields that PEFT fills in by itself."""
_TELLING = frozenset(
    {"alpha", "init_r", "lora_alpha", "lora_dropout", "num_virtual_tokens", "oft_block_size"}
    | {"r", "target_r"}
)
"""Fields that are told even where they are PEFT's defaults: what people ask for first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A method on a model.

    ``task`` is what the model trains for (``batches.TASKS``). ``config_class`` and ``fields`` are
    PEFT's config and what of it is worth writing down; None where no PEFT is at work. ``trained``
    are patterns of the model's own parameters that are trained, ``adds`` says whether there are
    others besides. ``linears`` are the names of the linear layers inside the model's layers.
    """

    task: str
    config_class: str | None
    fields: tuple[tuple[str, Any], ...]
    trained: tuple[str, ...]
    adds: bool
    linears: tuple[str, ...]


def attachment_of(model: ModelSpec, method: MethodSpec, training: TrainingSpec) -> Attachment:
    """Attach the method to the model without weights, and say how it was done.

    Raises:
        UsageError: the model or the combination cannot be built.
    """
    import peft

    configs: list[tuple[str, tuple[tuple[str, Any], ...]]] = []
    wrap = peft.get_peft_model

    def watched(base: Any, config: Any, *given: Any, **named: Any) -> Any:
        configs.append((type(config).__name__, tuple(_fields(config, base))))
        linears.extend(_linear_names(base))
        return wrap(base, config, *given, **named)

    linears: list[str] = []
    with patch("peft.get_peft_model", watched):
        prepared = prepare(model, method, training)
    name, fields = configs[0] if len(configs) == 1 else (None, ())
    return Attachment(
        task=task_of(prepared.base).name,
        config_class=name,
        fields=fields,
        trained=_patterns(prepared),
        adds=any(id(p) not in prepared.base_parameters for p in prepared.model.parameters()),
        linears=tuple(linears or _linear_names(prepared.base)),
    )


def _fields(config: Any, model: Any) -> list[tuple[str, Any]]:
    """What differs from the class's defaults or is telling, in the order of the class."""
    found = []
    for field in dataclasses.fields(config):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        value = getattr(config, field.name)
        unused = field.name == "r" and hasattr(config, "init_r")  # AdaLoRA's
        told = value != default or (field.name in _TELLING and not unused)
        if told and value is not None and field.name not in _BOOKKEEPING:
            plain = _plain(value)
            is_list = field.name == "target_modules" and isinstance(plain, list)
            found.append((field.name, _short(plain, model) if is_list else plain))
    return found


def _short(paths: list[str], model: Any) -> list[str] | str:
    """Whole paths of modules, layer by layer, as one regular expression that matches them all."""
    if not any(re.search(r"\.\d+\.", path) for path in paths):
        return paths
    forms = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\\\.)", r"\\d+", re.escape(p)) for p in paths)
    pattern = "|".join(forms)
    found = {path for path, _ in model.named_modules() if re.fullmatch(pattern, path)}
    return pattern if found == set(paths) else paths


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _linear_names(model: Any) -> list[str]:
    return list(dict.fromkeys(site.path.rpartition(".")[2] for site in sites(model)))


def _patterns(prepared: Prepared) -> tuple[str, ...]:
    """Shell patterns that match the names of exactly the model's own trained parameters.

    Numbers of layers become ``*``; a name that no pattern catches alone stands for itself.
    """
    own = {
        name: p.requires_grad
        for name, p in prepared.model.named_parameters()
        if id(p) in prepared.base_parameters
    }
    trained = {name for name, is_trained in own.items() if is_trained}
    if not trained or trained == set(own):
        return ("*",) if trained else ()
    short = dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in own if name in trained)
    for patterns in (("*bias",), tuple(short)):
        if {n for n in own if any(fnmatchcase(n, p) for p in patterns)} == trained:
            return patterns
    return tuple(name for name in own if name in trained)
