"""A loaded transformers model and its ``TrainingArguments``, as specs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from peftadvisor.data.config_files import config_key
from peftadvisor.errors import UsageError
from peftadvisor.profilers.watching import Fed
from peftadvisor.simulator.build import TORCH_DTYPES
from peftadvisor.specs import (
    Attention,
    Checkpointing,
    MethodSpec,
    ModelSpec,
    Optimizer,
    Quantization,
    TrainingSpec,
)

DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
ATTENTIONS = {name: name for name in get_args(Attention)}
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw-fused",
    "adamw_8bit": "adamw-8bit",
    "adamw_bnb_8bit": "adamw-8bit",
    "paged_adamw_8bit": "paged-adamw-8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""What ``TrainingArguments.optim`` is called here."""


def model_of(model: Any) -> ModelSpec:
    """A loaded transformers model, wrapped by PEFT or not, as a spec."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    parameters = sum(p.numel() for p in model.parameters())
    return ModelSpec(
        id=getattr(model.config, "_name_or_path", "") or str(config.get("model_type")),
        config=config,
        config_key=config_key(config),
        parameters=parameters,
        checkpoint_parameters=None,
        provenance="a loaded model",
    )


def method_of(model: Any) -> MethodSpec:
    """The PEFT method of a model, by PEFT's name and rank; else ``full``, or ``own`` if frozen."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        whole = all(p.requires_grad for p in model.parameters())
        return MethodSpec(name="full" if whole else "own")
    config = next(iter(configs.values()))
    kind = getattr(config.peft_type, "value", str(config.peft_type))
    rank = getattr(config, "r", None)
    spec = MethodSpec(name=kind.lower().replace("_", "-"))
    return spec.with_settings(rank=rank) if isinstance(rank, int) else spec


def training_of(args: Any, model: Any, fed: Fed) -> TrainingSpec:
    """``TrainingArguments`` as settings; the length is the longest that was seen.

    Batches count as padded, unless TRL packs them.

    Raises:
        UsageError: the optimizer, the dtype or the attention has no name here.
    """
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    attention = getattr(model.config, "_attn_implementation", None) or "eager"
    optim = str(getattr(args.optim, "value", args.optim))
    return TrainingSpec(
        micro_batch_size=args.per_device_train_batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        seq_len=max(1, fed.longest),
        padded=not getattr(args, "packing", False),
        dtype=_known("dtype", dtype, DTYPES),
        amp=args.bf16 or args.fp16,
        quantization=_quantization(model),
        optimizer=_known("optimizer", optim, OPTIMIZERS),
        gradient_checkpointing=_checkpointing(args),
        attention=_known("attention", attention, ATTENTIONS),
        max_grad_norm=args.max_grad_norm or 0.0,
    )


def _known(what: str, name: Any, known: Mapping[Any, Any]) -> Any:
    if name not in known:
        raise UsageError(f"the {what} {name} has no name here; pass training=TrainingSpec(…)")
    return known[name]


def _quantization(model: Any) -> Quantization:
    if getattr(model, "is_loaded_in_4bit", False):
        return "nf4"
    return "int8" if getattr(model, "is_loaded_in_8bit", False) else "none"


def _checkpointing(args: Any) -> Checkpointing:
    if not args.gradient_checkpointing:
        return "none"
    reentrant = (args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False)
    return "reentrant" if reentrant else "non-reentrant"
