"""Build a transformers model from its config on the meta device: real modules, no weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftadvisor.errors import UsageError
from peftadvisor.simulator import flash_attention
from peftadvisor.simulator.batches import choose_class, make_batch, uses_seq_len
from peftadvisor.simulator.depth import (
    at_depth,
    completed,
    depth_fields,
    fields_of,
    pattern_of,
    period,
)
from peftadvisor.specs import ModelSpec, TrainingSpec

__all__ = [
    "TORCH_DTYPES",
    "Stack",
    "at_depth",
    "build_model",
    "depth_fields",
    "make_batch",
    "period",
    "stacks_of",
    "uses_seq_len",
]

TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# Chance inside a step (a layer left out, spans of speech masked): off, so that every run is the
# same and none is smaller than the largest that training would meet.
_OFF = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
    "apply_spec_augment": False,
}


@dataclass(frozen=True, slots=True)
class Stack:
    """A list of layers that repeats.

    ``path`` of the ModuleList, its number of ``layers``, how many leading ones stand apart
    (``prefix``), how many unlike layers make one unit (``period``), and the config ``field``
    that holds the number. ``layers - prefix`` is a multiple of ``period``.
    """

    path: str
    layers: int
    prefix: int = 0
    period: int = 1
    field: str = ""


def build_model(spec: ModelSpec, training: TrainingSpec, device: str = "meta") -> nn.Module:
    """The model as ``from_pretrained`` would give it, in training mode, on the meta device.

    On another device its weights are random, as transformers begins them.

    The class is the one that the config names, with a head added where it has none
    (``batches.choose_class``). Experts take the path of a CUDA run (grouped matmul), and
    parameters that transformers keeps in fp32 are in fp32. Key-value caches are off.

    Raises:
        UsageError: transformers does not know the architecture, the config is inconsistent, or
            the attention asked for does not exist for it.
    """
    try:
        config = completed(spec.config)
        architecture = (config.architectures or [None])[0]
        cls, task = choose_class(config, architecture)
        model = _instantiate(cls, config, training, device)
    except UsageError as error:
        raise UsageError(f"{spec.id}: {error}") from error
    if task.forward:
        model.forward = functools.partial(model.forward, **task.forward)
    return model.train()


def _instantiate(cls: Any, config: Any, training: TrainingSpec, device: str) -> Any:
    dtype = TORCH_DTYPES[training.dtype]
    attention: str | None = None if training.attention == "sdpa" else training.attention
    if training.attention == "flash_attention_2":
        flash_attention.check(cls, dtype, training.amp)
        attention = flash_attention.register() if device == "meta" else attention
    for part in _parts(config):
        part.use_cache = False
        for name, value in _OFF.items():
            if hasattr(part, name):
                setattr(part, name, value)
    try:
        with torch.device(device):
            model = cls._from_config(config, dtype=dtype, attn_implementation=attention)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"{cls.__name__} cannot be built from this config: {line}") from error
    if training.gradient_checkpointing != "none" and not model.supports_gradient_checkpointing:
        raise UsageError(f"{cls.__name__} does not support gradient checkpointing")
    if device == "meta":
        _all_on_meta(model)
    _keep_in_fp32(model, dtype)
    return model


def _parts(config: Any) -> Iterator[Any]:
    yield config
    for key in config.sub_configs:
        part = getattr(config, key, None)
        if part is not None:
            yield from _parts(part)


def _all_on_meta(model: nn.Module) -> None:
    """Replace the few tensors that a model makes elsewhere (weight norm, on the CPU)."""
    for module in model.modules():
        for name, p in [*module.named_parameters(recurse=False)]:
            if not p.is_meta:
                moved = torch.empty_like(p, device="meta")
                setattr(module, name, nn.Parameter(moved, requires_grad=p.requires_grad))
        for name, buffer in [*module.named_buffers(recurse=False)]:
            if not buffer.is_meta:
                setattr(module, name, torch.empty_like(buffer, device="meta"))


def _keep_in_fp32(model: Any, dtype: torch.dtype) -> None:
    """Give the parameters fp32 that transformers loads so whatever the dtype asked for."""
    names = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype is torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if not names or dtype is torch.float32:
        return
    kept = re.compile("|".join(rf"(^|\.){name}($|\.)" for name in sorted(names)))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if kept.search(name) and tensor.is_floating_point():
            tensor.data = tensor.data.float()


def stacks_of(model: nn.Module) -> list[Stack]:
    """The repeated layers that a run goes through: the lists whose length a depth field holds.

    A list belongs to the part of the config that its nearest module with a config was built
    from; experts, convolutions and towers that do not run are none.
    """
    config: Any = model.config
    fields = fields_of(config)
    patterns = {field: pattern_of(config, field) for field in fields}
    found: list[Stack] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(
            path.startswith(stack.path + ".") for stack in found
        ):
            continue
        field = _field_of(model, path, len(module), fields)
        if field and all(stack.field != field for stack in found):
            found.append(Stack(path, len(module), *patterns[field], field))
    return found


def _field_of(model: Any, path: str, length: int, fields: dict[str, int]) -> str | None:
    """The depth field that a list of modules follows, or None."""
    words = path.split(".")
    part = _nearest_config(model, words)
    for field, layers in fields.items():
        owner = model.config
        *keys, name = field.split(".")
        for key in keys:
            owner = getattr(owner, key)
        decodes = not owner.is_encoder_decoder or ("decoder" in name) == ("decoder" in words)
        if layers == length and type(owner) is type(part) and decodes:
            return field
    return None


def _nearest_config(model: Any, words: list[str]) -> Any:
    module, config = model, model.config
    for word in words:
        module = getattr(module, word)
        config = getattr(module, "config", config)
    return config
