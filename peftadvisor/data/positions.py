"""How long an input a model has positions for, read from its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.specs import ModelSpec

Config = Mapping[str, Any]

# In order: the first key a config has wins. Whisper's source positions are encoder frames.
_LIMIT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_encoder_position_embeddings",
    "max_source_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
)

# What transformers 5.23 takes where a config leaves the key out (files may omit defaults).
_CLASS_DEFAULTS: Mapping[str, int] = {
    "albert": 512,
    "bart": 1024,
    "bert": 512,
    "deberta": 512,
    "distilbert": 512,
    "electra": 512,
    "falcon": 2048,
    "gpt2": 1024,
    "gpt_bigcode": 1024,
    "gpt_neo": 2048,
    "gptj": 2048,
    "mbart": 1024,
    "opt": 2048,
    "pegasus": 1024,
    "roberta": 512,
    "whisper": 1500,
    "xlm-roberta": 512,
}


def max_positions(spec: ModelSpec) -> int | None:
    """The longest input, in tokens, that the model has positions for.

    Counts learned, sinusoidal and rotary tables; image models count patches. None where the
    config sets no limit: relative positions (T5, DeBERTa-v2), ALiBi (BLOOM, MPT),
    convolutional positions (wav2vec2). Multimodal models give the limit of their text model.
    """
    text_config = spec.config.get("text_config")
    if isinstance(text_config, Mapping):
        return _limit(str(text_config.get("model_type", "")), text_config)
    return _limit(spec.model_type, spec.config)


def _limit(model_type: str, config: Config) -> int | None:
    return _RULES.get(model_type, _declared)(config) if model_type else _declared(config)


def _declared(config: Config) -> int | None:
    for key in _LIMIT_KEYS:
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return _CLASS_DEFAULTS.get(str(config.get("model_type")))


def _unlimited(config: Config) -> None:
    return None


def _after_padding(config: Config) -> int | None:
    """RoBERTa numbers positions from pad_token_id + 1, so its table serves that many fewer."""
    table = _declared(config)
    pad = config.get("pad_token_id", 1)
    return table if table is None or not isinstance(pad, int) else table - pad - 1


def _unless_alibi(config: Config) -> int | None:
    """MPT keeps the switch in attn_config (on by default), Falcon at the top (off by default)."""
    attention = config.get("attn_config")
    mpt = config.get("model_type") == "mpt"
    alibi = attention.get("alibi", mpt) if isinstance(attention, Mapping) else mpt
    return None if config.get("alibi", alibi) else _declared(config)


def _unless_relative(config: Config) -> int | None:
    """DeBERTa has an absolute table only where it is added to the input."""
    return _declared(config) if config.get("position_biased_input", True) else None


def _patches(config: Config) -> int | None:
    """ViT: one position per patch and one for the class token."""
    image, patch = config.get("image_size"), config.get("patch_size")
    if isinstance(image, int) and isinstance(patch, int) and patch > 0:
        return (image // patch) ** 2 + 1
    return None


_RULES: Mapping[str, Callable[[Config], int | None]] = {
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5", "bloom", "hubert", "wav2vec2"), _unlimited),
    **dict.fromkeys(
        (
            "camembert",
            "data2vec-text",
            "longformer",
            "mpnet",
            "roberta",
            "roberta-prelayernorm",
            "xlm-roberta",
            "xlm-roberta-xl",
        ),
        _after_padding,
    ),
    **dict.fromkeys(("mpt", "falcon"), _unless_alibi),
    **dict.fromkeys(("deberta", "deberta-v2"), _unless_relative),
    "vit": _patches,
}
