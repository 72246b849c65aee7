"""Find modules by what they do (attention, feed-forward, norm), whatever a model calls them.

Of a multimodal language model only the language part is searched: that is what runs on text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)
_CROSS = re.compile(r"cross|encdec|encoder_attn|encoder_decoder", re.IGNORECASE)
_QUERY = re.compile(r"^(q|wq|query|q_proj|q_lin|query_proj|q_a_proj|in_proj)$", re.IGNORECASE)
_KEY = re.compile(r"^(k|wk|key|k_proj|k_lin|key_proj)$", re.IGNORECASE)
_VALUE = re.compile(r"^(v|wv|value|v_proj|v_lin|value_proj|kv_b_proj)$", re.IGNORECASE)
_FUSED = re.compile(r"^(qkv|qkv_proj|wqkv|c_attn|query_key_value|attn_qkv)$", re.IGNORECASE)
_INPUT = re.compile(r"^in_proj_", re.IGNORECASE)  # linear attention
_ROLES = {"q": _QUERY, "k": _KEY, "v": _VALUE}
_BLOCKS = re.compile(r"moe|experts|mlp|feedforward|feed_forward|ffn", re.IGNORECASE)


def is_linear(module: Any) -> bool:
    """Whether a module is a matrix product with a weight (Linear, or GPT-2's Conv1D)."""
    return width_out(module) is not None and getattr(module, "weight", None) is not None


def is_mamba(module: Any) -> bool:
    """Whether a module mixes tokens by a state-space model (not a whole layer or model of them)."""
    name = type(module).__name__.lower()
    return "mamba" in name and ("mixer" in name or hasattr(module, "conv1d"))


def language_part(model: Any) -> tuple[str, Any]:
    """Path and module of the language model in a multimodal one; elsewhere "" and all of it."""
    text = model.config.get_text_config()
    if text is model.config or model.get_output_embeddings() is None:
        return "", model
    inside = (item for item in model.named_modules() if getattr(item[1], "config", None) is text)
    return next(inside, ("", model))


def stacks(model: Any) -> Iterator[Any]:
    """The outermost lists of modules that hold attention: one, or an encoder's and a decoder's."""
    from torch import nn

    found: list[str] = []
    for path, module in language_part(model)[1].named_modules():
        inside = any(path.startswith(prefix + ".") for prefix in found)
        if inside or not isinstance(module, nn.ModuleList):
            continue
        if any(_ATTENTION.search(name) for name, _ in module.named_modules()):
            found.append(path)
            yield module


def layers(model: Any) -> Iterator[Any]:
    """Every layer of all stacks, in order."""
    for stack in stacks(model):
        yield from stack


def self_attention(layer: Any) -> Any | None:
    """The self-attention module of a layer, or None."""
    for path, module in layer.named_modules():
        if path and _ATTENTION.search(path) and not _CROSS.search(path) and linears(module):
            return module
    return None


def attention_output(layer: Any) -> Any | None:
    """The projection that ends self-attention, or None.

    It is as wide as what most of its projections take in.
    """
    attention = self_attention(layer)
    inner = linears(attention) if attention is not None else []
    inputs = Counter(width_in(module) for _, module in inner)
    outputs = [
        module
        for name, module in inner
        if width_out(module) == inputs.most_common(1)[0][0] and not _is_input_projection(name)
    ]
    return outputs[-1] if outputs else None


def feed_forward_projection(layer: Any, hidden_size: int) -> Any | None:
    """The linear layer that ends the feed-forward part, or None (experts that are one tensor).

    ``hidden_size`` is the model's; the layer's own, where attention tells it, comes first.
    """
    width = width_of(layer, hidden_size)
    ends = [
        module
        for name, module in linears(layer)
        if width_out(module) == width and not _ATTENTION.search(name)
    ]
    return ends[-1] if ends else None


def feed_forward_output(layer: Any, hidden_size: int) -> Any | None:
    """What yields the output of feed-forward: its last projection, or all of the experts."""
    for path, _ in layer.named_modules():
        block, _, name = path.rpartition(".")
        if name == "experts" and block:
            return layer.get_submodule(block)
    end = feed_forward_projection(layer, hidden_size)
    if end is not None:
        return end
    blocks = [m for name, m in layer.named_children() if _BLOCKS.search(name)]
    return blocks[-1] if blocks else None


def width_of(layer: Any, hidden_size: int) -> int:
    """Width of the hidden states of a layer: what its attention puts out, else the model's."""
    end = attention_output(layer)
    return hidden_size if end is None else width_out(end) or hidden_size


def attention_role(path: str) -> str | None:
    """Which projection a linear layer inside of attention is: q, k, v, qkv or o; None outside."""
    if not _ATTENTION.search(path):
        return None
    name = path.rpartition(".")[2]
    if _FUSED.match(name):
        return "qkv"
    return next((role for role, pattern in _ROLES.items() if pattern.match(name)), "o")


def is_cross(path: str) -> bool:
    """Whether a path lies in attention of a decoder to its encoder."""
    return bool(_CROSS.search(path))


def projection_names(model: Any, roles: str) -> list[str]:
    """Last names of the attention projections of these roles (letters of ``qkv``), in order.

    A fused projection stands for all of its roles.
    """
    wanted = [_ROLES[role] for role in roles] + [_FUSED]
    names: dict[str, None] = {}
    for layer in layers(model):
        attention = self_attention(layer)
        for path, _ in linears(attention) if attention is not None else []:
            name = path.rpartition(".")[2]
            if any(pattern.match(name) for pattern in wanted):
                names[name] = None
    return list(names)


def targets(model: Any, names: Iterable[str]) -> Any:
    """Names as PEFT takes them: a list, or in a multimodal model a pattern of the language part."""
    prefix, _ = language_part(model)
    if not prefix:
        return list(names)
    return rf"{re.escape(prefix)}\.(.*\.)?({'|'.join(map(re.escape, names))})"


def norm_names(model: Any) -> list[str]:
    """Names of all normalization modules that hold weights.

    Last names where they mean nothing else in the model, else whole paths. Norms inside of Mamba
    layers are left out: their kernels read more of them than PEFT's wrapper has.
    """
    prefix, part = language_part(model)
    inside = tuple(f"{path}." for path, module in model.named_modules() if is_mamba(module))
    norms = {
        path: module
        for path, module in part.named_modules(prefix=prefix)
        if is_norm(module) and not path.startswith(inside)
    }
    others = {p.rpartition(".")[2] for p, _ in model.named_modules() if p not in norms}
    names = {path: path.rpartition(".")[2] for path in norms}
    return list(dict.fromkeys(path if name in others else name for path, name in names.items()))


def hidden_size(model: Any) -> int:
    """Width of the hidden states between layers of the (language) model."""
    config = model.config.get_text_config()
    return int(getattr(config, "hidden_size", None) or config.d_model)


def is_norm(module: Any) -> bool:
    """Whether a module is a normalization layer that holds weights."""
    return "norm" in type(module).__name__.lower() and any(
        True for _ in module.parameters(recurse=False)
    )


def linears(module: Any) -> list[tuple[str, Any]]:
    """Paths and modules of all linear layers inside."""
    return [(name, child) for name, child in module.named_modules() if is_linear(child)]


def _is_input_projection(path: str) -> bool:
    name = path.rpartition(".")[2]
    return any(p.match(name) for p in (_QUERY, _KEY, _VALUE, _FUSED, _INPUT))


def width_in(module: Any) -> int | None:
    """Input width of a linear layer."""
    return getattr(module, "in_features", None) or getattr(module, "nx", None)


def width_out(module: Any) -> int | None:
    """Output width of a linear layer, None for another module."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.out_features
    return module.nf if type(module).__name__ == "Conv1D" else None
