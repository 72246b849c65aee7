"""torchtune's model component as a model and a method. Read in torchtune 0.6.1."""

from __future__ import annotations

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    figure,
    names,
    shown,
    switch,
    whole,
)
from peftadvisor.integrations.configs.torchtune_models import FUSED, built, model_of
from peftadvisor.integrations.exports.lora import ALL_LINEAR
from peftadvisor.integrations.exports.torchtune import ATTENTION
from peftadvisor.specs import MethodSpec, Quantization

_COMPONENT, _ATTENTION_KEY = "model._component_", "model.lora_attn_modules"
_SEPARATE = {theirs: ours for ours, names in ATTENTION.items() for theirs in names[:1]}
_SEPARATE |= {"q_proj": "q_proj"}
"""transformers' names of attention's projections, by torchtune's."""
_JOINED = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "output_proj": "o_proj",
}
_FEED_FORWARD = {False: ("gate_proj", "up_proj", "down_proj"), True: ("gate_up_proj", "down_proj")}


def read_method(reader: Reader) -> tuple[str, MethodSpec, Quantization, tuple[str, ...]]:
    """The model's id, what of it is trained, how the base is held, and notes.

    Raises:
        UsageError: the component is none of a model here, or layers are none that it adapts.
    """
    found = built(str(reader.peek(_COMPONENT)))
    if found is None:
        raise UsageError(
            f"{reader.file}: '{_COMPONENT}' is {shown(reader.peek(_COMPONENT))}, which has no "
            "model here; known are torchtune's builders of text models, full, lora_ and qlora_"
        )
    module, plain, adapted = found
    folder = str(reader.peek("checkpointer.checkpoint_dir", ""))
    model, named = model_of(plain, folder)
    source = reader.told(_COMPONENT)
    told = (
        f"{source}, checkpoint_dir: {shown(folder)}" if named else f"{source}, whose shapes it has"
    )
    reader.note("model", model, _COMPONENT, told)
    if not adapted:
        reader.note("method", "full", _COMPONENT, source)
        reader.note("quantization", "none", _COMPONENT, source)
        return model, MethodSpec(name="full"), "none", ()
    quantization = _quantization(reader, adapted == "qlora_")
    method, notes = _lora(reader, module in FUSED, quantization)
    return model, method, quantization, notes


def _quantization(reader: Reader, default: bool) -> Quantization:
    kinds: dict[bool, Quantization] = {True: "nf4-dq", False: "none"}
    why = reader.told(_COMPONENT) if default else None
    key = "model.quantize_base"
    return reader.take("quantization", key, lambda v: kinds[switch(v)], kinds[default], why)


def _lora(
    reader: Reader, fused: bool, quantization: Quantization
) -> tuple[MethodSpec, tuple[str, ...]]:
    targets, notes = _targets(reader, fused)
    dora = reader.has("model.use_dora") and reader.understood(
        "model.use_dora", reader.peek("model.use_dora"), switch
    )
    everywhere = targets == ALL_LINEAR
    plain = ("qlora" if quantization != "none" else "lora-all") if everywhere else "lora"
    name = "dora" if dora else plain
    key = "model.use_dora" if dora else _COMPONENT
    reader.note("method", name, key, reader.told(key))
    settings = {
        "rank": reader.take("rank", "model.lora_rank", whole, 8),
        "alpha": reader.take("alpha", "model.lora_alpha", figure, 16.0),
        "dropout": reader.take("dropout", "model.lora_dropout", amount, 0.0),
    }
    own = {} if everywhere and not dora else {"target_modules": targets}
    return MethodSpec(name=name).with_settings(**settings, **own), notes


def _targets(reader: Reader, fused: bool) -> tuple[str | tuple[str, ...], tuple[str, ...]]:
    """The adapted layers by transformers' names, and a note where those are joined there."""
    if not reader.has(_ATTENTION_KEY):
        raise UsageError(f"{reader.file} lacks '{_ATTENTION_KEY}', which torchtune needs; add it")
    table = _JOINED if fused else _SEPARATE
    theirs = reader.understood(_ATTENTION_KEY, reader.peek(_ATTENTION_KEY), _layers)
    key = "model.apply_lora_to_mlp"
    wide = reader.has(key) and reader.understood(key, reader.peek(key), switch)
    ours = tuple(dict.fromkeys(table[name] for name in theirs))
    everywhere = wide and len(set(theirs)) == len(_JOINED)
    targets = ALL_LINEAR if everywhere else (*ours, *(_FEED_FORWARD[fused] if wide else ()))
    told = f"{_ATTENTION_KEY}: {', '.join(theirs)}" + (", apply_lora_to_mlp: true" if wide else "")
    reader.note("target_modules", targets, _ATTENTION_KEY, told)
    text = "LoRA on query, key and value is predicted on the projection that joins them"
    return targets, (text,) if fused else ()


def _layers(value: object) -> tuple[str, ...]:
    found = names(value)
    if any(name not in _JOINED for name in found):
        raise ValueError(f"known here: {', '.join(_JOINED)}")
    return found
