"""``load_model`` of the exported script: the base, quantized or not, and the method on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftadvisor.integrations.exports.peft_data import AUTO_CLASSES
from peftadvisor.integrations.exports.peft_methods import (
    HEADS_BY_HAND,
    LOW_RANK,
    SELECTIVE,
    STEPS,
    config_fields,
)
from peftadvisor.integrations.exports.python_source import Code, assigned, call, indented
from peftadvisor.integrations.exports.value import Export

if TYPE_CHECKING:
    from peftadvisor.simulator.attachment import Attachment

DTYPES = {"bf16": "torch.bfloat16", "fp16": "torch.float16", "fp32": "torch.float32"}
_DTYPE_ARGUMENT = {"5": "dtype", "4": "torch_dtype", "4.45": "torch_dtype"}
_BITS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False},
    "nf4-dq": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "int8": {"load_in_8bit": True},
}


def load_model(export: Export, found: Attachment) -> tuple[str, list[str]]:
    """The source of ``load_model(name)``, and the imports that it needs."""
    base, imports = _base(export, found)
    method, more = _method(export, found)
    lines = [
        "def load_model(name):",
        '    """The model with what is trained of it."""',
        *indented([*base, _no_cache(found), *_checkpointing(export), *method]),
    ]
    return "\n".join(lines), [*imports, *more]


def _base(export: Export, found: Attachment) -> tuple[list[str], list[str]]:
    t, auto = export.training, AUTO_CLASSES[found.task]
    imports = ["import torch", f"from transformers import {auto}"]
    named: dict[str, Any] = {_DTYPE_ARGUMENT[t.transformers]: Code(DTYPES[t.dtype])}
    if t.attention != "sdpa":
        named["attn_implementation"] = t.attention
    if found.task == "classifier":
        named["num_labels"] = _labels(export)
    if t.quantization == "none":
        return assigned("model", call(f"{auto}.from_pretrained", named, [Code("name")])), imports
    lines = []
    if t.quantization in _BITS:
        lines += assigned("quantization", call("BitsAndBytesConfig", _bits(export, found)))
        named["quantization_config"] = Code("quantization")
        imports.append("from transformers import BitsAndBytesConfig")
    if not _divides(export):
        named["device_map"] = Code('{"": PartialState().process_index}')
        imports.append("from accelerate import PartialState")
    lines += assigned("model", call(f"{auto}.from_pretrained", named, [Code("name")]))
    prepared, more = _prepared(export)
    return [*lines, *prepared], [*imports, *more]


def _no_cache(found: Attachment) -> str:
    part = ".get_text_config()" if found.task == "multimodal-lm" else ""
    return f"model.config{part}.use_cache = False"


def _labels(export: Export) -> int:
    config = export.run.model.config
    labels = config.get("id2label") or {}
    return len(labels) or int(config.get("num_labels") or 2)


def _bits(export: Export, found: Attachment) -> dict[str, Any]:
    t = export.training
    bits = dict(_BITS[t.quantization])
    if t.quantization != "int8":
        bits["bnb_4bit_compute_dtype"] = Code(DTYPES[t.dtype])
        if _divides(export):  # only weights of the compute dtype are divided
            bits["bnb_4bit_quant_storage"] = Code(DTYPES[t.dtype])
    if found.task == "classifier":
        bits["llm_int8_skip_modules"] = ["score", "classifier"]
    return bits


def _divides(export: Export) -> bool:
    """Whether each GPU holds its share of the weights, and so loads none of them whole."""
    return export.run.gpus > 1 and export.run.sharding in ("fsdp", "zero-3")


def _prepared(export: Export) -> tuple[list[str], list[str]]:
    """What is done to the rest of a quantized base; checkpointing is left to the Trainer."""
    t = export.training
    if t.kbit_preparation == "none":
        return [], []
    lines = ["model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)"]
    if t.kbit_preparation == "trl":
        lines += [
            "for name, module in model.named_modules():  # only norms stay in fp32",
            '    if "norm" not in name and any(',
            '        part in name for part in ("lm_head", "embed_tokens", "wte", "wpe")',
            "    ):",
            f"        module.to({DTYPES[t.dtype]})",
        ]
    return lines, ["from peft import prepare_model_for_kbit_training"]


def _checkpointing(export: Export) -> list[str]:
    if export.training.gradient_checkpointing == "none":
        return []
    return ["model.enable_input_require_grads()  # for checkpoints of frozen layers"]


def _method(export: Export, found: Attachment) -> tuple[list[str], list[str]]:
    name = export.run.method.name
    if found.config_class is None:
        if name in LOW_RANK or found.trained == ("*",):
            return ["return model"], []
        assert name in SELECTIVE
        return [
            "for name, parameter in model.named_parameters():",
            "    parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in TRAINED))",
            "return model",
        ], ["from fnmatch import fnmatch"]
    config = call(found.config_class, config_fields(export, dict(found.fields)))
    steps, imports = _steps(export, found)
    lines = [
        *assigned("config", config),
        "model = get_peft_model(model, config)",
        *steps,
        "model.print_trainable_parameters()",
        "return model",
    ]
    return lines, [f"from peft import {found.config_class}, get_peft_model", *imports]


def _steps(export: Export, found: Attachment) -> tuple[list[str], list[str]]:
    name = export.run.method.name
    steps = STEPS.get(name)
    lines = list(steps.lines(export.settings)) if steps else []
    if name in HEADS_BY_HAND and found.task == "classifier":
        lines += [
            "for name, parameter in model.named_parameters():",
            '    if ".score." in name or ".classifier." in name:',
            "        parameter.requires_grad_(True)",
        ]
    return lines, list(steps.imports) if steps else []
