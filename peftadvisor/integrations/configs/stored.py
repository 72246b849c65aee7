"""A base that is quantized in its checkpoint already, whatever the config says or leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.value import ReadConfig, Traced
from peftadvisor.specs import ModelSpec, Quantization


def as_stored(config: ReadConfig, model: ModelSpec) -> ReadConfig:
    """The config with the quantization that the model's own ``config.json`` tells of.

    Raises:
        UsageError: a kind that cannot be predicted.
    """
    told = model.config.get("quantization_config")
    if not isinstance(told, Mapping) or config.training.quantization != "none":
        return config
    quantization = _kind(told, model)
    source = f"quantization_config of {one_line(model.id)}: {quantization}"
    trace = Traced(name="quantization", value=quantization, key=None, source=source)
    others = (traced for traced in config.traced if traced.name != trace.name)
    training = dataclasses.replace(config.training, quantization=quantization)
    return dataclasses.replace(config, training=training, traced=(trace, *others))


def _kind(told: Mapping[str, Any], model: ModelSpec) -> Quantization:
    method = str(told.get("quant_method", "bitsandbytes" if "load_in_4bit" in told else None))
    if method == "gptq" and told.get("bits") == 4:
        return "gptq"
    if method == "bitsandbytes" and told.get("load_in_8bit"):
        return "int8"
    if method == "bitsandbytes" and told.get("load_in_4bit"):
        return "nf4-dq" if told.get("bnb_4bit_use_double_quant") else "nf4"
    bits = f" in {told['bits']} bits" if "bits" in told else ""
    raise UsageError(
        f"{one_line(model.id)} is stored quantized by {one_line(method)}{bits}, which is not "
        "predicted; there are gptq in 4 bits and bitsandbytes"
    )
