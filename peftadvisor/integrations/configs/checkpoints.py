"""What a bundled model's own config tells a reader: the dtype of its weights, its usual targets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.models import find_model, load_model_file
from peftadvisor.data.query_value import query_value
from peftadvisor.errors import UsageError
from peftadvisor.specs import DType, ModelSpec

DTYPES: Mapping[str, DType] = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "fp16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "fp32": "fp32",
    "float": "fp32",
}
"""Our names of dtypes by those of torch and of command lines."""


def known_model(name: str) -> ModelSpec | None:
    """The bundled model or the local folder of that name, None where there is none."""
    for find in (find_model, _local):
        try:
            return find(name)
        except UsageError:
            continue
    return None


def _local(name: str) -> ModelSpec:
    return load_model_file(Path(name))


def checkpoint_dtype(name: str) -> DType | None:
    """The dtype that the checkpoint was saved in, None where its config is not here or silent."""
    model = known_model(name)
    config = {} if model is None else model.config
    text = config.get("text_config")
    for values in (config, text if isinstance(text, Mapping) else {}):
        said = values.get("dtype", values.get("torch_dtype"))
        if said is not None:
            return DTYPES.get(str(said).removeprefix("torch."))
    return None


def weights_dtype(name: str) -> tuple[DType, str]:
    """The dtype that weights have where it is the checkpoint's, and why that is thought."""
    found, model = checkpoint_dtype(name), known_model(name)
    if found is not None:
        return found, f"the checkpoint of {name}"
    if model is None:
        return "bf16", f"assumed, as the config of {name} is not here"
    if "quantization_config" in model.config:
        return "bf16", f"assumed, as the config of {name} tells its quantization alone"
    return "fp32", f"assumed, as configs that tell no dtype, such as {name}'s, are mostly of fp32"


def is_gptq(name: str) -> bool:
    """Whether the config of a model on this machine says that its weights are GPTQ's."""
    model = known_model(name)
    said = {} if model is None else model.config.get("quantization_config")
    return isinstance(said, Mapping) and str(said.get("quant_method")).lower() == "gptq"


def model_type(name: str) -> str | None:
    """The transformers type of a model that is known here."""
    model = known_model(name)
    return None if model is None else model.model_type


def targets(model: str, named: Any) -> Any:
    """``target_modules`` as our methods take it.

    None stands for query and value, also where a list names exactly what they are called in this
    model; ``all-linear`` and patterns stay as they are.
    """
    if named is None or isinstance(named, str):
        return named
    names = tuple(sorted(named)) if isinstance(named, set) else tuple(named)
    if names in (("all-linear",), ("all",)):
        return "all-linear"
    usual = query_value(model_type(model) or "")
    if usual is not None and usual.pattern is None and set(usual.names) == set(names):
        return None
    return names
