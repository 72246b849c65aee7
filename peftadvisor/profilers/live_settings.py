"""How a live model is trained: its arguments and its optimizer as settings, or what is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from peftadvisor.errors import UsageError
from peftadvisor.profilers.loaded import ATTENTIONS, DTYPES, OPTIMIZERS
from peftadvisor.profilers.seen import Seen
from peftadvisor.specs import Checkpointing, Optimizer, Quantization, TrainingSpec

UNKNOWN_ARGUMENTS: Mapping[str, str] = {
    "torch_compile": "torch.compile fuses and reorders what is held",
    "use_liger_kernel": "Liger's kernels are not those of the model",
    "label_smoothing_factor": "the loss of label smoothing is another",
    "fsdp": "FSDP divides the model",
    "deepspeed": "DeepSpeed divides the model",
    "activation_offloading": "activations are kept on the host",
    "torch_empty_cache_steps": "the cache is emptied between steps",
    "optim_target_modules": "the optimizer projects gradients",
}
"""Arguments of transformers and TRL that change what a step takes, and are not read here."""


MORE_ARGUMENTS: Mapping[str, str] = {
    "neftune_noise_alpha": "NEFTune adds noise as large as the embeddings",
}
"""Arguments that only add to what a step takes."""


def unknown_arguments(args: Any, begun: bool) -> Iterator[str]:
    """What is set in the arguments that no prediction here takes into account.

    ``begun`` is whether a trainer has the model already: then a loss that TRL has put into it is
    seen there.
    """
    for name, why in UNKNOWN_ARGUMENTS.items():
        if getattr(args, name, None):
            yield f"{name} is set: {why}"
    if getattr(args, "n_gpu", 1) > 1:
        yield "one process drives several GPUs; start with torchrun"
    if _is_trl(args) and not (begun and _is_trl(args, "SFTConfig")):
        yield f"{type(args).__name__}: what a step of TRL's trainer does is not known here"


def more_arguments(args: Any) -> Iterator[str]:
    """What is set in the arguments that adds to a step, and to no prediction here."""
    for name, why in MORE_ARGUMENTS.items():
        if getattr(args, name, None):
            yield f"{name} is set: {why}"
    if _is_trl(args):
        yield "TRL's SFTTrainer works out entropy and accuracy from the logits"


def _is_trl(args: Any, name: str = "") -> bool:
    """Whether these are arguments of TRL, or of that class of it, or made from them."""
    theirs = [c for c in type(args).__mro__ if c.__module__.partition(".")[0] == "trl"]
    return any(c.__name__ == name for c in theirs) if name else bool(theirs)


def settings_of(model: Any, args: Any, optimizer: Any, seen: Seen, on_card: bool) -> TrainingSpec:
    """The training settings of a Trainer that trains a plain transformers model.

    ``model`` is the one inside PEFT's, ``optimizer`` None where there is none yet: then it is the
    one that the arguments name.

    Raises:
        UsageError: a setting is none that is known here.
    """
    quantization = _quantization(model)
    pairs = model.config.is_encoder_decoder and seen.target_len
    return TrainingSpec(
        micro_batch_size=seen.rows,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        seq_len=seen.seq_len,
        target_len=pairs or TrainingSpec().target_len,
        padded=seen.padded,
        dtype=_known("dtype", _dtype(model, quantization), DTYPES),
        amp=bool(args.bf16 or args.fp16),
        quantization=quantization,
        optimizer=optimizer_of(args, optimizer, on_card),
        gradient_checkpointing=checkpointing_of(model, args),
        attention=_known(
            "attention", getattr(model.config, "_attn_implementation", None), ATTENTIONS
        ),
        max_grad_norm=args.max_grad_norm or 0.0,
        loop="trainer",
    )


def _known(what: str, name: Any, known: Mapping[Any, Any]) -> Any:
    if name not in known:
        raise UsageError(f"the {what} {name} is none of {', '.join(map(str, known))}")
    return known[name]


def _dtype(model: Any, quantization: Quantization) -> Any:
    if quantization != "none":
        return model.config.dtype
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def _quantization(model: Any) -> Quantization:
    config = getattr(model.config, "quantization_config", None)
    if config is None:
        return "none"
    read = config.get if isinstance(config, dict) else lambda name, _=None: getattr(config, name, _)
    if read("load_in_8bit"):
        return "int8"
    if not (read("load_in_4bit") and read("bnb_4bit_quant_type") == "nf4"):
        raise UsageError("the base is quantized otherwise than by nf4 or int8 of bitsandbytes")
    return "nf4-dq" if read("bnb_4bit_use_double_quant") else "nf4"


def checkpointing_of(model: Any, args: Any) -> Checkpointing:
    """How activations are recomputed: as set on the model's layers, or by arguments to come.

    Raises:
        UsageError: only some layers are, or the activations wait on the host.
    """
    wishes = args.gradient_checkpointing_kwargs or {}
    if args.gradient_checkpointing and not model.is_gradient_checkpointing:
        return "reentrant" if wishes.get("use_reentrant", False) else "non-reentrant"
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    if not any(layer.gradient_checkpointing for layer in layers):
        return "none"
    if not all(layer.gradient_checkpointing for layer in layers):
        raise UsageError("only some layers recompute their activations")
    functions = [f for m in layers if (f := getattr(m, "_gradient_checkpointing_func", None))]
    named: Mapping[str, Any] = getattr(functions[0], "keywords", {}) if functions else {}
    if functions and getattr(functions[0], "func", None) is not torch.utils.checkpoint.checkpoint:
        raise UsageError("activations are recomputed by a function of the user's own")
    return "reentrant" if named.get("use_reentrant", False) else "non-reentrant"


def optimizer_of(args: Any, optimizer: Any, on_card: bool) -> Optimizer:
    """Our name of an optimizer, or of the one that the arguments name.

    Raises:
        UsageError: it is none that is known here, or holds more than ours.
    """
    if optimizer is None:
        named = str(getattr(args.optim, "value", args.optim))
        known: Optimizer = _known("optimizer", named, OPTIMIZERS)
        return "adamw-loop" if known == "adamw" and not on_card else known
    kind = type(optimizer)
    key = (kind.__module__.partition(".")[0], kind.__name__)
    if key not in _CLASSES:
        raise UsageError(f"the optimizer {kind.__module__}.{kind.__name__} is none known here")
    return _CLASSES[key](optimizer, on_card)


def _adamw(optimizer: Any, on_card: bool) -> Optimizer:
    group = optimizer.param_groups[0]
    if group["amsgrad"]:
        raise UsageError("AdamW with amsgrad keeps one more state than is simulated")
    if group["fused"]:
        return "adamw-fused"
    foreach = on_card if group["foreach"] is None else group["foreach"]
    return "adamw" if foreach else "adamw-loop"


def _sgd(optimizer: Any, _: bool) -> Optimizer:
    if optimizer.param_groups[0]["momentum"]:
        raise UsageError("SGD with momentum keeps a state that is not simulated")
    return "sgd"


def _bitsandbytes(optimizer: Any, _: bool) -> Optimizer:
    if optimizer.args.optim_bits != 8:
        raise UsageError("AdamW of bitsandbytes with states of 32 bits is not simulated")
    return "paged-adamw-8bit" if optimizer.is_paged else "adamw-8bit"


def _adafactor(optimizer: Any, _: bool) -> Optimizer:
    if optimizer.param_groups[0].get("beta1") is not None:
        raise UsageError("Adafactor with momentum keeps a state that is not simulated")
    return "adafactor"


_CLASSES: Mapping[tuple[str, str], Callable[[Any, bool], Optimizer]] = {
    ("torch", "AdamW"): _adamw,
    ("torch", "SGD"): _sgd,
    ("transformers", "Adafactor"): _adafactor,
    ("bitsandbytes", "AdamW"): _bitsandbytes,
    ("bitsandbytes", "AdamW8bit"): _bitsandbytes,
    ("bitsandbytes", "PagedAdamW"): _bitsandbytes,
    ("bitsandbytes", "PagedAdamW8bit"): _bitsandbytes,
}
"""Optimizers by the package and the name of their class."""
