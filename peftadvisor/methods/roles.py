"""Find modules by what they do (attention, feed-forward, norm), whatever a model calls them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_CROSS = re.compile(r"cross|encdec|encoder_attn|encoder_decoder", re.IGNORECASE)
_QUERY = re.compile(r"^(q|wq|query|q_proj|q_lin|query_proj|q_a_proj|in_proj)$", re.IGNORECASE)
_KEY = re.compile(r"^(k|wk|key|k_proj|k_lin|key_proj)$", re.IGNORECASE)
_VALUE = re.compile(r"^(v|wv|value|v_proj|v_lin|value_proj|kv_b_proj)$", re.IGNORECASE)
_FUSED = re.compile(r"^(qkv|qkv_proj|wqkv|c_attn|query_key_value|attn_qkv)$", re.IGNORECASE)
_EXPERTS = re.compile(r"moe|experts|mlp|feedforward|ffn", re.IGNORECASE)


def is_linear(module: Any) -> bool:
    """Whether a module is a matrix product with a weight (Linear, or GPT-2's Conv1D)."""
    return _width_out(module) is not None and getattr(module, "weight", None) is not None


def layers(model: Any) -> Iterator[Any]:
    """Every layer of the outermost lists of like modules that hold attention, in order."""
    from torch import nn

    found: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(prefix + ".") for prefix in found)
        if inside or not isinstance(module, nn.ModuleList) or len(module) < 2:
            continue
        if all(any(_ATTENTION.search(name) for name, _ in m.named_modules()) for m in module):
            found.append(path)
            yield from module


def self_attention(layer: Any) -> tuple[str, Any] | None:
    """The self-attention module of a layer with its path, or None."""
    for path, module in layer.named_modules():
        if path and _ATTENTION.search(path) and not _CROSS.search(path) and _linears(module):
            return path, module
    return None


def attention_output(layer: Any, hidden_size: int) -> Any | None:
    """The projection that ends self-attention, or None."""
    found = self_attention(layer)
    if found is None:
        return None
    ends = [
        module
        for name, module in _linears(found[1])
        if _width_out(module) == hidden_size and not _is_input_projection(name)
    ]
    return ends[-1] if ends else None


def feed_forward_output(layer: Any, hidden_size: int) -> Any | None:
    """The projection that ends the feed-forward part; the whole block where experts are fused."""
    ends = [
        module
        for name, module in _linears(layer)
        if _width_out(module) == hidden_size and not _ATTENTION.search(name)
    ]
    if ends:
        return ends[-1]
    blocks = [m for name, m in layer.named_children() if _EXPERTS.search(name)]
    return blocks[-1] if blocks else None


def projection_names(model: Any, roles: str) -> list[str]:
    """Last names of the attention projections of these roles (letters of ``qkv``), in order.

    A fused projection stands for all of its roles.
    """
    patterns = {"q": _QUERY, "k": _KEY, "v": _VALUE}
    wanted = [patterns[role] for role in roles] + [_FUSED]
    names: dict[str, None] = {}
    for layer in layers(model):
        found = self_attention(layer)
        for path, _ in _linears(found[1]) if found else []:
            name = path.rpartition(".")[2]
            if any(pattern.match(name) for pattern in wanted):
                names[name] = None
    return list(names)


def norm_names(model: Any) -> list[str]:
    """Last names of all normalization modules that hold weights."""
    names: dict[str, None] = {}
    for path, module in model.named_modules():
        parameters = list(module.parameters(recurse=False))
        if "norm" in type(module).__name__.lower() and parameters and path:
            names[path.rpartition(".")[2]] = None
    return list(names)


def hidden_size(model: Any) -> int:
    """Width of the hidden states between layers."""
    config = model.config.get_text_config()
    return int(getattr(config, "hidden_size", None) or config.d_model)


def _linears(module: Any) -> list[tuple[str, Any]]:
    return [(name, child) for name, child in module.named_modules() if is_linear(child)]


def _is_input_projection(path: str) -> bool:
    name = path.rpartition(".")[2]
    return any(p.match(name) for p in (_QUERY, _KEY, _VALUE, _FUSED))


def _width_out(module: Any) -> int | None:
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.out_features
    return module.nf if type(module).__name__ == "Conv1D" else None
