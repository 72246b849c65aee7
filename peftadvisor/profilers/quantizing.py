"""A model with a base quantized by bitsandbytes, loaded as transformers does, prepared for PEFT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from logging import ERROR, getLogger
from typing import Any

import torch
from torch import nn

from peftadvisor.errors import UnsupportedError
from peftadvisor.profilers.checkpoints import load_model
from peftadvisor.simulator.build import TORCH_DTYPES, build_model
from peftadvisor.simulator.quantized import convertible, narrow
from peftadvisor.simulator.quantized_layers import OUTLIER
from peftadvisor.specs import ModelSpec, Quantization, TrainingSpec

SPREAD = 0.02
"""Standard deviation of random weights, transformers' default."""


def quantized_model(
    spec: ModelSpec, training: TrainingSpec, device: str, checkpoint: str | None = None
) -> Any:
    """The model that the simulator quantizes, with the same layers in bitsandbytes' own.

    The rest of it waits on the host while layer by layer is quantized on the device, so that
    there is never more than one of them in 16 bits there. Without a checkpoint no weight is made
    before its turn.

    Raises:
        UsageError: the model cannot be built or loaded, nothing in it can be quantized, or
            bitsandbytes is not installed.
    """
    _require_bitsandbytes(training.quantization)
    model = _on_host(spec, training, checkpoint)
    for path in convertible(model):
        source = model.get_submodule(path)
        if checkpoint is None:
            _fill(source, device)
        model.set_submodule(path, _quantized(source, training, device))
        del source
    model.to(device)
    if checkpoint is None:
        model.init_weights()
    return _prepared(model, training)


def beside_weights(model: Any) -> Iterator[torch.Tensor]:
    """What layers of bitsandbytes hold in neither parameter nor buffer: scales and codes.

    Scales of int8 move from the weight to the layer in the first forward.
    """
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code)
            if state.nested:
                yield from (state.offset, state.state2.absmax, state.state2.code)
    layers = (getattr(module, "state", None) for module in model.modules())
    for holder in (*model.parameters(), *layers):
        scales = getattr(holder, "SCB", None)
        if isinstance(scales, torch.Tensor):
            yield scales


def product_flops() -> dict[Any, Callable[..., int]]:
    """Formulas of the products that torch's counter sees as one kernel of bitsandbytes."""
    kernels = torch.ops.bitsandbytes
    formulas = {"gemm_4bit": _gemm_flops, "int8_mixed_scaled_mm": _int8_flops}
    return {getattr(kernels, n): f for n, f in formulas.items() if hasattr(kernels, n)}


def _gemm_flops(x: Any, _: Any, shape: Any, *__: Any, **___: Any) -> int:
    return 2 * int(torch.Size(x).numel()) * int(shape[0])


def _int8_flops(_: Any, x: Any, weight: Any, *__: Any, **___: Any) -> int:
    return 2 * int(torch.Size(x).numel()) * int(weight[0])


def _require_bitsandbytes(quantization: Quantization) -> None:
    if quantization == "gptq":
        raise UnsupportedError("a GPTQ base is simulated only; use --engine simulate")
    getLogger("bitsandbytes").setLevel(ERROR)  # it warns in every product of LLM.int8
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise UnsupportedError(
            f"a {quantization} base is measured with bitsandbytes; pip install bitsandbytes, or "
            "use --engine simulate"
        ) from error


def _on_host(spec: ModelSpec, training: TrainingSpec, checkpoint: str | None) -> Any:
    """The model with the weights of a checkpoint, or with weights that nobody has set."""
    from transformers.initialization import no_init_weights

    if checkpoint is not None:
        return load_model(checkpoint, spec, training, "cpu")
    with no_init_weights():
        return build_model(spec, training, "cpu")


@torch.no_grad()
def _fill(layer: Any, device: str) -> None:
    layer.to_empty(device=device)
    layer.weight.normal_(std=SPREAD)
    if layer.bias is not None:
        layer.bias.zero_()


def _quantized(source: Any, training: TrainingSpec, device: str) -> Any:
    """The layer of bitsandbytes in place of one Linear or Conv1D, with its weight."""
    weight = source.weight.data if isinstance(source, nn.Linear) else source.weight.data.T
    make = _int8 if training.quantization == "int8" else _nf4
    layer = make(weight.to(device), source.bias is not None, training)
    layer.bias = source.bias
    layer.weight.logical_numel = weight.numel()
    for made in (layer, layer.weight):
        made._is_hf_initialized = True  # for transformers: not to be set at random
    return layer


def _nf4(weight: torch.Tensor, biased: bool, training: TrainingSpec) -> Any:
    from bitsandbytes import nn as layers

    rows, columns = weight.shape
    kind: dict[str, Any] = {
        "compress_statistics": training.quantization == "nf4-dq",
        "quant_type": "nf4",
    }
    dtype = TORCH_DTYPES[training.dtype]
    layer = layers.Linear4bit(columns, rows, biased, dtype, device="meta", **kind)
    plain = layers.Params4bit(weight, requires_grad=False, module=layer, **kind)
    layer.weight = plain.to(weight.device)  # which quantizes it
    return layer


def _int8(weight: torch.Tensor, biased: bool, _: TrainingSpec) -> Any:
    from bitsandbytes import nn as layers
    from bitsandbytes.functional import int8_vectorwise_quant

    rows, columns = weight.shape
    layer = layers.Linear8bitLt(
        columns, rows, biased, has_fp16_weights=False, threshold=OUTLIER, device="meta"
    )
    packed, scales, _outliers = int8_vectorwise_quant(weight.to(torch.float16).contiguous())
    layer.weight = layers.Int8Params(packed, requires_grad=False, CB=packed, SCB=scales)
    return layer


def _prepared(model: Any, training: TrainingSpec) -> Any:
    """Mark the model as transformers does, and prepare it as PEFT or TRL does.

    Biases of 4-bit layers would get the compute dtype in the first forward; they have it at once.
    """
    from bitsandbytes.nn import Linear4bit
    from peft import prepare_model_for_kbit_training
    from transformers.utils.quantization_config import QuantizationMethod

    model.is_quantized = True
    model.quantization_method = QuantizationMethod.BITS_AND_BYTES
    model.is_loaded_in_8bit = training.quantization == "int8"
    model.is_loaded_in_4bit = training.quantization != "int8"
    if training.kbit_preparation == "none":
        model.requires_grad_(False)
    else:
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    for module in model.modules():
        if isinstance(module, Linear4bit) and module.bias is not None:
            module.bias.data = module.bias.data.to(module.compute_dtype)
    if training.kbit_preparation == "trl":
        narrow(model, TORCH_DTYPES[training.dtype])
    return model
