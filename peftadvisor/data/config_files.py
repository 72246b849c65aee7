"""A Hugging Face ``config.json`` from disk, and the key that says which configs are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.specs import ModelSpec

MAX_CONFIG_BYTES = 10 * 10**6
_COSMETIC_SUFFIX = "_token_id"
_COSMETIC_KEYS = frozenset(
    {
        *("transformers_version", "torch_dtype", "dtype", "pretraining_tp"),
        *("initializer_range", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
    }
)
_ROTARY = frozenset({"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"})
"""Model types that keep no table of positions."""
_POSITIONS = frozenset({"max_position_embeddings", "rope_theta", "rope_scaling", "rope_parameters"})
_ANGLES = ("default", "llama3")
"""Ways to scale rotary positions that are done with once the model is built."""
_WINDOW = frozenset({"sliding_window", "max_window_layers"})
_REMEDY = "pass the config.json of a Hugging Face model, or a folder that holds one"


def config_key(config: Mapping[str, Any]) -> str:
    """A stable short hash of what a config says about the model's shape.

    Left out at every depth is what changes no tensor and no kernel: keys that start with ``_``,
    dtypes, the transformers version, token ids, where initial values and norms start from, how many
    and which rotary positions there are, windows that are not used. ``1e4`` and ``10000`` are the
    same. Sixteen hexadecimal digits of SHA-256.
    """
    import hashlib  # 3 ms of import (OpenSSL) that bundled models, whose key is stored, skip

    text = json.dumps(_shape(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_model_file(path: str | Path) -> ModelSpec:
    """The model that a local ``config.json``, or a folder with one, describes.

    Parameter counts are None: they are known once the model is built.

    Raises:
        UsageError: no such file, not a regular file, unreadable, over 10 MB, binary, not JSON,
            not an object, or without a usable ``model_type``.
    """
    shown = one_line(str(path))
    config = _parse(_read(Path(path), shown), shown)
    model_type = config.get("model_type")
    if model_type is None:
        raise UsageError(f"{shown} has no key 'model_type'; {_REMEDY}")
    if not (isinstance(model_type, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", model_type)):
        value = one_line(json.dumps(model_type))
        raise UsageError(f"{shown}: 'model_type' is {value}; write a name such as \"llama\"")
    return ModelSpec(
        id=str(path),
        config=config,
        config_key=config_key(config),
        parameters=None,
        checkpoint_parameters=None,
        provenance=f"local file {shown}",
    )


def _read(path: Path, shown: str) -> bytes:
    try:
        file = path / "config.json" if path.is_dir() else path
        if not file.exists():
            missing = "holds no config.json" if path.is_dir() else "does not exist"
            raise UsageError(f"{shown} {missing}; {_REMEDY}")
        if not file.is_file():
            raise UsageError(f"{shown} is not a regular file; {_REMEDY}")
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise UsageError(f"{shown} is larger than 10 MB, so no model config; {_REMEDY}")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise UsageError(f"{shown} cannot be read ({reason}); {_REMEDY}") from None


def decoded(content: bytes, shown: str, remedy: str) -> str:
    """A file's content as text.

    Raises:
        UsageError: there is nothing in it, or it is not UTF-8.
    """
    if not content.strip():
        raise UsageError(f"{shown} is empty; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text; {remedy}") from None


def _parse(content: bytes, shown: str) -> dict[str, Any]:
    text = decoded(content, shown, _REMEDY)
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{shown} is not valid JSON ({where}: {error.msg}); {_REMEDY}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{shown} holds numbers or nesting beyond any config; {_REMEDY}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{shown} holds a JSON {_json_name(config)}, not an object; {_REMEDY}")
    return config


def _json_name(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        without = _without_effect(value)
        return {k: _shape(v) for k, v in value.items() if k not in without and not _is_cosmetic(k)}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_cosmetic(key: str) -> bool:
    return key.startswith("_") or key in _COSMETIC_KEYS or key.endswith(_COSMETIC_SUFFIX)


def _without_effect(config: Mapping[str, Any]) -> frozenset[str]:
    """Keys that matter in other configs."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    told = scaling if isinstance(scaling, Mapping) else {}
    plain = not scaling or told.get("rope_type", told.get("type", "default")) in _ANGLES
    rotary = config.get("model_type") in _ROTARY and plain
    unused = config.get("use_sliding_window") is False
    return (_POSITIONS if rotary else frozenset()) | (_WINDOW if unused else frozenset())
