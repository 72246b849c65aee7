"""The linear layers of language models whose config alone tells their sizes: without torch.

``sites`` reads real modules and knows them all; this is for advice in milliseconds, on families
whose layers are all alike. Letters: d hidden size, f feed-forward width, a and k the widths of
all query heads and of all key heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from peftadvisor.methods.sites import Linear, Role

Config = Mapping[str, Any]
Shapes = tuple[tuple[str, str, str, str], ...]
"""Name, role, width in and width out of each linear layer of one layer."""

_ATTENTION: Shapes = (
    ("self_attn.q_proj", "q", "d", "a"),
    ("self_attn.k_proj", "k", "d", "k"),
    ("self_attn.v_proj", "v", "d", "k"),
    ("self_attn.o_proj", "o", "a", "d"),
)
_GATED: Shapes = (
    *_ATTENTION,
    ("mlp.gate_proj", "gate", "d", "f"),
    ("mlp.up_proj", "up", "d", "f"),
    ("mlp.down_proj", "down", "f", "d"),
)
_FUSED: Shapes = (
    ("self_attn.qkv_proj", "qkv", "d", "a+2k"),
    ("self_attn.o_proj", "o", "a", "d"),
    ("mlp.gate_up_proj", "gate", "d", "2f"),
    ("mlp.down_proj", "down", "f", "d"),
)
_NEOX: Shapes = (
    ("attention.query_key_value", "qkv", "d", "a+2k"),
    ("attention.dense", "o", "a", "d"),
    ("mlp.dense_h_to_4h", "up", "d", "f"),
    ("mlp.dense_4h_to_h", "down", "f", "d"),
)
_GPT2: Shapes = (
    ("attn.c_attn", "qkv", "d", "a+2k"),
    ("attn.c_proj", "o", "a", "d"),
    ("mlp.c_fc", "up", "d", "f"),
    ("mlp.c_proj", "down", "f", "d"),
)
_STARCODER2: Shapes = (*_ATTENTION, *_GPT2[2:])
_PHI: Shapes = (
    *_ATTENTION[:3],
    ("self_attn.dense", "o", "a", "d"),
    ("mlp.fc1", "up", "d", "f"),
    ("mlp.fc2", "down", "f", "d"),
)
_OPT: Shapes = (
    *_ATTENTION[:3],
    ("self_attn.out_proj", "o", "a", "d"),
    ("fc1", "up", "d", "f"),
    ("fc2", "down", "f", "d"),
)
_DECODERS: Mapping[str, Shapes] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), _GATED),
    **dict.fromkeys(("gemma3_text", "granite", "stablelm", "olmo", "olmo2"), _GATED),
    **dict.fromkeys(("olmo3", "smollm3", "cohere"), _GATED),
    "phi3": _FUSED,
    "gpt_neox": _NEOX,
    "bloom": _NEOX,
    "gpt2": _GPT2,
    "starcoder2": _STARCODER2,
    "phi": _PHI,
    "opt": _OPT,
}
_T5 = ("t5", "mt5", "umt5")
_CROSS = "EncDecAttention"


def config_linears(config: Config) -> tuple[Linear, ...] | None:
    """The linear layers inside all layers, in order; None where the config does not tell.

    Paths begin at the number of the layer; biases are not told (``bias`` is False throughout).
    """
    kind, widths = str(config.get("model_type")), _widths(config)
    if kind in _T5:
        encoder = _first(config, "num_layers")
        decoder = _first(config, "num_decoder_layers") or encoder
        gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
        own, cross, forward = _t5_parts(gated)
        return (
            *_stack((*own, *forward), widths, 0, encoder),
            *_stack((*own, *cross, *forward), widths, encoder, decoder),
        )
    shapes = _DECODERS.get(kind)
    # OPT-350m has further linear layers between embeddings and layers.
    if shapes is None or config.get("word_embed_proj_dim") not in (None, hidden_width(config)):
        return None
    return _stack(shapes, widths, 0, _first(config, "num_hidden_layers", "n_layer"))


def hidden_width(config: Config) -> int | None:
    """The hidden size that a config declares, of the text model in a multimodal one."""
    inner = config.get("text_config")
    found = _first(
        inner if isinstance(inner, Mapping) else config, "hidden_size", "d_model", "n_embd"
    )
    return found or None


def has_experts(config: Config) -> bool:
    """Whether a router chooses among feed-forward parts."""
    inner = config.get("text_config")
    merged = {**config, **inner} if isinstance(inner, Mapping) else config
    return _first(merged, "num_local_experts", "num_experts", "n_routed_experts") > 1


def _first(config: Config, *keys: str) -> int:
    """The first of these numbers that the config holds, else 0."""
    return next((value for key in keys if isinstance(value := config.get(key), int)), 0)


def _widths(config: Config) -> tuple[tuple[str, int], ...]:
    d = hidden_width(config) or 0
    f = _first(config, "intermediate_size", "d_ff", "ffn_dim", "n_inner") or 4 * d
    heads = _first(config, "num_attention_heads", "num_heads", "n_head")
    head = _first(config, "head_dim", "d_kv") or d // max(1, heads)
    a, k = heads * head, (_first(config, "num_key_value_heads") or heads) * head
    return (("d", d), ("f", f), ("2f", 2 * f), ("a", a), ("k", k), ("a+2k", a + 2 * k))


@lru_cache(maxsize=32)
def _stack(
    shapes: Shapes, widths: tuple[tuple[str, int], ...], first: int, count: int
) -> tuple[Linear, ...]:
    """So many layers of these shapes; advice on many methods asks for the same again and again."""
    width = dict(widths)
    return tuple(
        Linear(
            path=f"{number}.{name}",
            role=cast(Role, role),
            inputs=width[inputs],
            outputs=width[outputs],
            bias=False,
            cross=name.startswith(_CROSS),
            layer=number,
        )
        for number in range(first, first + count)
        for name, role, inputs, outputs in shapes
    )


def _t5_parts(gated: bool) -> tuple[Shapes, Shapes, Shapes]:
    """Self-attention, cross-attention and feed-forward of T5."""
    ends = (("q", "d", "a"), ("k", "d", "a"), ("v", "d", "a"), ("o", "a", "d"))
    own: Shapes = tuple((f"SelfAttention.{e}", e, i, o) for e, i, o in ends)
    cross: Shapes = tuple((f"{_CROSS}.{e}", e, i, o) for e, i, o in ends)
    ups = ("wi_0", "wi_1") if gated else ("wi",)
    forward: Shapes = (
        *((f"DenseReluDense.{name}", "up", "d", "f") for name in ups),
        ("DenseReluDense.wo", "down", "f", "d"),
    )
    return own, cross, forward
