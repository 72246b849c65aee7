"""The depth of a model as its config tells it, and the same config at another depth.

Layers of one stack need not be alike: five local and one global attention layer, three dense
layers before the mixtures of experts, the last layers sharing the keys of earlier ones. What the
config says about layer *i* is its signature; from the list of signatures follow the ``prefix``
(leading layers that do not take part in the repetition) and the ``period`` after it. The rest of
``(layers - prefix) / period`` is counted into the prefix, so that a stack is always
``prefix + units * period`` layers and a shorter one starts like the full one: cutting units off
the end of the list leaves the config of a model of the same kind.

Everything works on the config as transformers completes it (``normal``), where defaults and
derived lists (``layer_types``) are written out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from peftadvisor.errors import UsageError

# Lists that name layers by their index; every other list as long as the stack whose name holds
# "layer" has one entry per layer.
_INDEX_LISTS = frozenset({"cross_attention_layers", "mlp_only_layers", "moe_layers"})
# Numbers of layers counted from the start, and from the end.
_FIRST_COUNTS = ("first_k_dense_replace",)
_LAST_COUNTS = ("num_kv_shared_layers",)
# "every n-th layer is different", where no list says so.
_STEPS = ("decoder_sparse_step",)
# What only the code of a model says: leading layers that hold other weights than the rest
# (T5 keeps the relative position bias, ModernBERT drops a norm, in the first layer).
_UNLIKE_FIRST = {"t5": 1, "mt5": 1, "umt5": 1, "modernbert": 1}
# Sub-configs of what a run does not touch: only the text path of a multimodal model is run.
_BOTH_TOWERS = frozenset({"clip", "siglip", "siglip2"})


def completed(config_dict: Mapping[str, Any]) -> Any:
    """The transformers config object of a config.json, its defaults filled in.

    Keys that start with ``_`` are ours and stay out; ``_build_as`` replaces the whole config of
    a model whose code is not part of transformers; ``quantization_config`` is left out, since
    the quantization of a run is part of its settings.

    Raises:
        UsageError: no model type, one that transformers does not know, or inconsistent values.
    """
    import transformers

    raw = copy.deepcopy(dict(config_dict.get("_build_as") or config_dict))
    raw = {k: v for k, v in raw.items() if not k.startswith("_") and k != "quantization_config"}
    model_type = raw.pop("model_type", None)
    if not isinstance(model_type, str):
        raise UsageError("the config names no 'model_type'; take the config.json of the model")
    if model_type not in transformers.CONFIG_MAPPING:
        raise UsageError(
            f"transformers {transformers.__version__} has no model type '{model_type}'; "
            "it may need a newer version"
        )
    try:
        return transformers.AutoConfig.for_model(model_type, **raw)
    except Exception as error:  # third-party validation raises many kinds
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"the config of this {model_type} is not valid: {line}") from error


def normal(config_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The config as transformers would save it, every default and list written out."""
    config: dict[str, Any] = completed(config_dict).to_dict()
    config.update({k: v for k, v in config_dict.items() if k.startswith("_") and k != "_build_as"})
    return config


def depth_fields(config_dict: Mapping[str, Any]) -> dict[str, int]:
    """Number of layers by the path of the config entry that holds it.

    Encoder-decoders have two, decoders one; the text part of a multimodal model alone counts,
    since only it is run. Models that run one shared layer again and again (ALBERT) have none.
    """
    return fields_of(completed(config_dict))


def period(config_dict: Mapping[str, Any], field: str) -> tuple[int, int]:
    """Prefix and period of a stack: ``layers = prefix + units * period`` with whole units.

    Raises:
        UsageError: the config has no such field.
    """
    return pattern_of(completed(config_dict), field)


def layers_for(config_dict: Mapping[str, Any], units: int) -> dict[str, int]:
    """Layers by depth field of the model cut to the prefix and this many units.

    A stack whose prefix is more than half of it (layers in no regular order) stays whole.
    """
    config = completed(config_dict)
    short: dict[str, int] = {}
    for field, layers in fields_of(config).items():
        prefix, width = pattern_of(config, field)
        short[field] = layers if 2 * prefix > layers else min(layers, prefix + units * width)
    return short


def at_depth(config_dict: Mapping[str, Any], layers: Mapping[str, int]) -> dict[str, Any]:
    """A copy of the config (completed, see ``normal``) with other numbers of layers.

    Lists with an entry per layer are cut, or continued by the period; lists of indexes and
    counts from the end follow.

    Raises:
        UsageError: a field that the config does not have, or fewer layers than its prefix.
    """
    config = completed(config_dict)
    patterns = {field: pattern_of(config, field) for field in layers}
    result = normal(config_dict)
    for field, count in layers.items():
        prefix, _ = patterns[field]
        if count < max(prefix, 1):
            raise UsageError(f"{field} is {count}; this model needs at least {max(prefix, 1)}")
        owner_path, _, name = field.rpartition(".")
        full = fields_of(config)[field]
        target = _at(result, owner_path)
        source = _sources(full, count, patterns[field])
        target.update(_resized(_owner(config, owner_path), full, source))
        if target.get("per_layer_config"):
            target["per_layer_config"] = _moved(target["per_layer_config"], source)
        target[name] = count
        for alias, meant in _owner(config, owner_path).attribute_map.items():
            if meant == name:
                target.pop(alias, None)
    return result


def fields_of(config: Any) -> dict[str, int]:
    """``depth_fields`` of a config object."""
    found: dict[str, int] = {}
    for path, part in _run_parts(config):
        if getattr(part, "num_hidden_groups", None):
            continue
        names = [part.attribute_map.get("num_hidden_layers", "num_hidden_layers")]
        if part.is_encoder_decoder:
            names += ["decoder_layers", "num_decoder_layers"]
        for name in names:
            layers = getattr(part, name, None)
            if isinstance(layers, int) and layers > 0:
                found[f"{path}.{name}" if path else name] = layers
    return found


def pattern_of(config: Any, field: str) -> tuple[int, int]:
    """``period`` of a config object."""
    fields = fields_of(config)
    if field not in fields:
        known = ", ".join(fields) or "none"
        raise UsageError(f"the config has no depth field '{field}'; it has: {known}")
    owner = _owner(config, field.rpartition(".")[0])
    return _repetition(list(_signatures(owner, fields[field])))


def is_run(config: Any, part: Any) -> bool:
    """Whether a run of the model goes through the modules built from this part of its config."""
    return any(type(part) is type(candidate) for _, candidate in _run_parts(config))


def _run_parts(config: Any) -> Iterator[tuple[str, Any]]:
    """Configs with a stack that a run goes through, by their path."""
    text = config.get_text_config()
    paths = [key for key in config.sub_configs if getattr(config, key, None) is text]
    if config.model_type in _BOTH_TOWERS:
        for key in config.sub_configs:
            yield key, getattr(config, key)
    else:
        yield (paths[0] if paths else "", text)


def _owner(config: Any, path: str) -> Any:
    for key in filter(None, path.split(".")):
        config = getattr(config, key)
    return config


def _at(config: dict[str, Any], path: str) -> dict[str, Any]:
    for key in filter(None, path.split(".")):
        config = config[key]
    return config


def _layer_lists(part: Any, layers: int) -> dict[str, list[Any]]:
    """Lists with one entry per layer."""
    return {
        key: value
        for key, value in vars(part).items()
        if isinstance(value, list)
        and len(value) == layers
        and "layer" in key
        and key not in _INDEX_LISTS
    }


def _signatures(part: Any, layers: int) -> Iterator[tuple[Any, ...]]:
    """What the config says about each layer."""
    lists = list(_layer_lists(part, layers).values())
    indexes = [set(getattr(part, key, None) or ()) for key in sorted(_INDEX_LISTS)]
    first = [getattr(part, key, None) or 0 for key in _FIRST_COUNTS]
    first.append(_UNLIKE_FIRST.get(part.model_type, 0))
    last = [getattr(part, key, None) or 0 for key in _LAST_COUNTS]
    steps = [getattr(part, key, None) or 1 for key in _STEPS]
    for i in range(layers):
        yield (
            *(values[i] for values in lists),
            *(i in chosen for chosen in indexes),
            *(i < count for count in first),
            *(i >= layers - count for count in last),
            *((i + 1) % step == 0 for step in steps),
        )


def _repetition(signatures: Sequence[Any]) -> tuple[int, int]:
    """The least prefix after which the rest repeats at least twice, and the least such period."""
    total = len(signatures)
    for prefix in range(total):
        rest = signatures[prefix:]
        for width in range(1, len(rest) // 2 + 1):
            if all(a == b for a, b in zip(rest, rest[width:], strict=False)):
                return prefix + len(rest) % width, width
    return total - 1, 1


def _sources(full: int, count: int, pattern: tuple[int, int]) -> list[int]:
    """For each layer of the resized stack, the layer of the full one that it is like."""
    prefix, width = pattern
    return [i if i < full else prefix + (i - prefix) % width for i in range(count)]


def _resized(part: Any, full: int, source: Sequence[int]) -> dict[str, Any]:
    """The entries of a config that follow from another number of layers."""
    changed: dict[str, Any] = {
        key: [values[i] for i in source] for key, values in _layer_lists(part, full).items()
    }
    for key in _INDEX_LISTS:
        if getattr(part, key, None):
            chosen = set(getattr(part, key))
            changed[key] = [i for i, old in enumerate(source) if old in chosen]
    for key in _LAST_COUNTS:
        if getattr(part, key, None):
            changed[key] = max(0, getattr(part, key) + len(source) - full)
    if "attention_types" in vars(part) and "attention_layers" in changed:  # GPT-Neo
        changed["attention_types"] = [[changed["attention_layers"], 1]]
    return changed


def _moved(overrides: Mapping[Any, Any], source: Sequence[int]) -> dict[int, Any]:
    """Settings of single layers, by index, for the layers of the resized stack."""
    by_index = {int(index): values for index, values in overrides.items()}
    return {i: by_index[old] for i, old in enumerate(source) if old in by_index}
