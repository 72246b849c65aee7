"""Quantize the base of a model as transformers does with bitsandbytes, and prepare it for PEFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.base import Method
from peftadvisor.simulator.build import TORCH_DTYPES
from peftadvisor.simulator.quantized_layers import (
    Linear4bit,
    LinearGptq,
    LinearInt8,
    QuantizedLinear,
)
from peftadvisor.specs import Quantization, TrainingSpec

HEADS = ("score", "classifier")
"""Heads that PEFT trains whole for classification, and so are not quantized. transformers would
quantize those that have a bias; PEFT then fails, and users have to name them as modules to skip.
"""


NARROWED = ("lm_head", "embed_tokens", "wte", "wpe")
"""Names of modules that TRL casts back to bf16."""


def quantize_base(model: Any, training: TrainingSpec) -> None:
    """Replace layers as transformers does for bitsandbytes, then prepare the rest for training.

    Every Linear and Conv1D is replaced but the output head, tied weights, classification heads
    and what the model keeps in fp32; experts that are one tensor are no Linear and stay.
    ``model.lora_layers`` tells LoRA how to wrap.

    Raises:
        UnsupportedError: there is nothing to quantize.
    """
    dtype = TORCH_DTYPES[training.dtype]
    for path in convertible(model):
        source = model.get_submodule(path)
        model.set_submodule(path, quantized_layer(source, training.quantization, dtype))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    if training.kbit_preparation != "none":
        _widen(model)
    for module in model.modules():
        if isinstance(module, Linear4bit) and module.bias is not None:
            module.bias.data = module.bias.data.to(dtype)
    if training.kbit_preparation == "trl":
        narrow(model, dtype)
    model.lora_layers = {
        Linear4bit: _lora_layer(clone=True),
        LinearInt8: _lora_layer(clone=False),
        LinearGptq: _lora_layer(clone=False),
    }


def _widen(model: Any) -> None:
    """What still has 16 bits (norms, embeddings, head, experts) gets fp32, as PEFT has it.

    Biases of 4-bit layers have the compute dtype again from the first forward on.
    """
    for parameter in model.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def narrow(model: Any, dtype: torch.dtype) -> None:
    """Head and embeddings get 16 bits again, as TRL's trainers had it for years; norms do not."""
    for name, module in model.named_modules():
        if "norm" not in name and any(part in name for part in NARROWED):
            for parameter in module.parameters(recurse=False):
                if parameter.dtype is torch.float32:
                    parameter.data = parameter.data.to(dtype)


def quantized_layer(source: Any, quantization: Quantization, dtype: torch.dtype) -> QuantizedLinear:
    """The substitute of one Linear or Conv1D; ``dtype`` is that of its products."""
    if quantization == "int8":
        return LinearInt8(source)
    if quantization == "gptq":
        return LinearGptq(source, dtype)
    return Linear4bit(source, dtype, quantization == "nf4-dq")


def require_quantizable(method: Method, quantization: Quantization) -> None:
    """Refuse a quantized base under a method that cannot take one.

    Raises:
        UnsupportedError: the method changes or reads weights that would be packed.
    """
    if quantization != "none" and not method.quantized_base:
        raise UnsupportedError(
            f"{method.name} does not work on a quantized base; leave --quantization out, or use "
            "qlora"
        )


def convertible(model: Any) -> list[str]:
    """Paths of the layers that transformers quantizes.

    Raises:
        UnsupportedError: there are none (Falcon: its layers are a subclass of Linear, which
            transformers 5.23 passes over).
    """
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    skipped = HfQuantizer.get_modules_to_not_convert(
        model, list(HEADS), model._keep_in_fp32_modules, add_default_skips=True
    )
    found = [
        path
        for path, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D))
        and should_convert_module(path, skipped)
    ]
    if not found:
        raise UnsupportedError(
            f"{type(model).__name__} has no layer that transformers would quantize"
        )
    return found


def _lora_layer(clone: bool) -> Any:
    """PEFT's LoRA layer with the order of operations that PEFT has for bitsandbytes layers.

    A 4-bit result is copied first; without autocast the update is brought to the result's dtype
    before it is added.
    """
    from peft.tuners.lora.layer import Linear

    class QuantizedLora(Linear):
        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            result = self.base_layer(x, *args, **kwargs)
            result = result.clone() if clone else result
            for name in self.active_adapters:
                result = self._added(name, x, result)
            return result

        def _added(self, name: str, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
            dtype = result.dtype
            casts = not torch.is_autocast_enabled()
            down, up = self.lora_A[name], self.lora_B[name]
            if casts:
                x = self._cast_input_dtype(x, down.weight.dtype)
            if name in self.lora_variant:  # DoRA
                variant = self.lora_variant[name]
                result = variant.forward(self, active_adapter=name, x=x, result=result)
                return result.to(dtype) if casts else result
            update = up(down(self.lora_dropout[name](x))) * self.scaling[name]
            return result + (update.to(dtype) if casts else update)

    return QuantizedLora
