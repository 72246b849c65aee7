"""Axolotl: the YAML that ``axolotl train`` reads. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.axolotl_edits import edits
from peftadvisor.integrations.configs.axolotl_keys import (
    ATTENTION,
    ATTENTION_SWITCHES,
    CUT_PLUGIN,
    IGNORED,
    LIGER_PLUGIN,
    LOSSES,
    NON_REENTRANT_TYPES,
    OPTIMIZERS,
    PREFIXES,
    PRETRAINING_TYPES,
    VERSION,
    model_type,
    on,
)
from peftadvisor.integrations.configs.axolotl_method import read_method
from peftadvisor.integrations.configs.axolotl_notes import notes_of, plugins_of
from peftadvisor.integrations.configs.axolotl_sharding import read_sharding
from peftadvisor.integrations.configs.reader import (
    Reader,
    amount,
    one_of,
    switch,
    text,
    whole,
)
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.specs import (
    Attention,
    Checkpointing,
    DType,
    Job,
    KbitPreparation,
    Loss,
    Quantization,
    Task,
    TrainingSpec,
)

_MARKS = (
    *("base_model", "sequence_len", "micro_batch_size", "sample_packing", "adapter", "lora_r"),
    *("lora_target_linear", "datasets", "val_set_size", "num_epochs", "load_in_4bit"),
)


def marks(values: Mapping[str, Any]) -> int:
    """How many of the keys that no other tool has together stand here."""
    return sum(key in values for key in _MARKS) if "base_model" in values else 0


def read(file: ConfigFile) -> ReadConfig:
    """The run that axolotl would start.

    Raises:
        UsageError: a value that is none, a key that axolotl needs, or a run that is not predicted.
    """
    reader = Reader(file.values, file.path, f"axolotl {VERSION}")
    _require_supervised(reader)
    model = reader.take("model", "base_model", text, "")
    method, quantization = read_method(reader)
    training = _training(reader, quantization)
    gpus, sharding, sharding_notes = read_sharding(reader, Path(file.path).parent)
    notes = dict.fromkeys((*notes_of(reader, method.name), *sharding_notes))
    return ReadConfig(
        tool="axolotl",
        version=VERSION,
        model=model,
        method=method,
        training=training,
        job=_job(reader),
        learning_rate=reader.take("learning_rate", "learning_rate", amount, None),
        gpus=gpus,
        sharding=sharding,
        unknown=reader.unknown(IGNORED, PREFIXES),
        traced=tuple(reader.traced),
        notes=tuple(notes),
    )


def _training(reader: Reader, quantization: Quantization) -> TrainingSpec:
    dtype, amp = _dtypes(reader)
    attention = _attention(reader)
    micro, steps = _batches(reader)
    _note_fixed(reader, quantization)
    norm = "max_grad_norm"
    return TrainingSpec(
        micro_batch_size=micro,
        gradient_accumulation_steps=steps,
        seq_len=reader.take("seq_len", "sequence_len", whole, 512),
        padded=_padded(reader, attention),
        dtype=dtype,
        amp=amp,
        quantization=quantization,
        optimizer=reader.take("optimizer", "optimizer", one_of(OPTIMIZERS), "adamw-fused"),
        gradient_checkpointing=_checkpointing(reader),
        attention=attention,
        max_grad_norm=reader.take(norm, norm, amount, 1.0, "default of transformers 5"),
        kbit_preparation=_preparation(quantization),
        loss=_loss(reader),
        loop="trainer",
        transformers="5",
    )


def _require_supervised(reader: Reader) -> None:
    for key in ("base_model", "learning_rate"):
        if not reader.has(key):
            raise UsageError(f"{reader.file} lacks '{key}', which axolotl needs; add it")
    if not reader.has("datasets") and not reader.has("pretraining_dataset"):
        raise UsageError(f"{reader.file} lacks 'datasets', which axolotl needs; add it")
    for key in ("rl", "reward_model", "process_reward_model", "ebft"):
        if on(reader.peek(key)):
            raise UsageError(
                f"{reader.file}: '{key}' trains on pairs, rewards or with a second model, which "
                "is not predicted; check a config of supervised training"
            )


def _batches(reader: Reader) -> tuple[int, int]:
    """The micro batch and how many make a step.

    ``gradient_accumulation_steps`` is 1 unless said, so ``batch_size`` divides only where it
    stands there as null.
    """
    steps, key = "gradient_accumulation_steps", "batch_size"
    micro = reader.take("micro_batch_size", "micro_batch_size", whole, 1)
    if not reader.has(key):
        return micro, reader.take(steps, steps, whole, 1)
    if reader.has(steps):
        raise UsageError(f"{reader.file} has both '{steps}' and '{key}'; remove '{key}'")
    total = reader.understood(key, reader.peek(key), whole)
    if steps not in reader.values:
        why = f"default of {reader.defaults_of}, in whose presence '{key}' has no effect"
        return micro, reader.take(steps, steps, whole, 1, why)
    if total < micro:
        raise UsageError(f"{reader.file}: '{key}' is below 'micro_batch_size'; raise it")
    reader.note(steps, total // micro, key, f"{key}: {total} by micro_batch_size {micro}")
    return micro, total // micro


def _dtypes(reader: Reader) -> tuple[DType, bool]:
    """The dtype of weights, and whether autocast runs; the first switch that is on decides."""
    auto = reader.peek("bf16", "auto" if "bf16" not in reader.values else False)
    said = {
        key: reader.has(key) and reader.understood(key, reader.peek(key), switch)
        for key in ("fp16", "bfloat16", "float16", "float32", "load_in_8bit")
    }
    bf16 = not said["fp16"] if auto == "auto" else reader.understood("bf16", auto, switch)
    table: tuple[tuple[bool, str, DType, bool], ...] = (
        (bf16, "bf16", "bf16", True),
        (said["bfloat16"], "bfloat16", "bf16", True),
        (said["fp16"], "fp16", "fp16", True),
        (said["float16"], "float16", "fp16", False),
        (said["load_in_8bit"], "load_in_8bit", "fp16", False),
        (True, "float32", "fp32", False),
    )
    key, dtype, amp = next((key, dtype, amp) for chosen, key, dtype, amp in table if chosen)
    given = key if reader.has(key) else None
    source = reader.told(key) if given else f"default of {reader.defaults_of}"
    if key == "bf16" and auto == "auto":
        source += ", which is bf16 where the GPU has it"
    for name, value in (("dtype", dtype), ("amp", amp)):
        reader.note(name, value, given, source)
    return dtype, amp


def _attention(reader: Reader) -> Attention:
    key = "attn_implementation"
    switches = [old for old in ATTENTION_SWITCHES if on(reader.peek(old))]
    if on(reader.peek("gemma4_hybrid_attn_impl")) and not switches and not reader.has(key):
        switches = ["flash_attention"]
    if reader.has(key) or not switches:
        return reader.take("attention", key, _backend, "sdpa", "default of transformers 5")
    value = ATTENTION[ATTENTION_SWITCHES[switches[0]]]
    reader.note("attention", value, switches[0], f"{switches[0]}: true")
    return value


def _backend(value: Any) -> Attention:
    return one_of(ATTENTION)(str(value).split("@")[0].split(":")[0].strip())


def _padded(reader: Reader, attention: Attention) -> bool:
    """Whether a mask goes with the batch: of padding, or of packed documents."""
    packed = reader.has("sample_packing") and reader.understood(
        "sample_packing", reader.peek("sample_packing"), switch
    )
    apart = attention == "flash_attention_2" or on(reader.peek("sdpa_varlen"))
    reader.peek("pad_to_sequence_len")
    why = "apart by lengths" if apart else f"apart by a mask, as {attention} needs one"
    source = f"sample_packing: true, documents kept {why}" if packed else "no sample_packing"
    reader.note("padded", not (packed and apart), "sample_packing" if packed else None, source)
    return not (packed and apart)


def _checkpointing(reader: Reader) -> Checkpointing:
    key, inner = "gradient_checkpointing", "fsdp_config.activation_checkpointing"
    asked = reader.peek(key, False)
    words: dict[str, bool] = {"offload": True, "offload_disk": True}
    chosen = words.get(str(asked)) or reader.understood(key, asked, switch)
    old = "fsdp_config.fsdp_activation_checkpointing"
    inner = next((where for where in (inner, old) if on(reader.peek(where))), "")
    for name in ("use_reentrant", "preserve_rng_state"):
        reader.peek(f"gradient_checkpointing_kwargs.{name}")
    kind: Checkpointing = "none"
    source: tuple[str | None, str] = (None, f"default of {reader.defaults_of}")
    if chosen:
        kind, said = _reentrant(reader)
        source = key, f"{reader.told(key)}, {said}"
    elif inner:
        kind, source = "non-reentrant", (inner, f"{inner}: true")
    elif reader.has(key):
        source = key, f"{key}: false"
    reader.note(key, kind, *source)
    return kind


def _reentrant(reader: Reader) -> tuple[Checkpointing, str]:
    key, kind = "gradient_checkpointing_kwargs.use_reentrant", model_type(reader.peek("base_model"))
    if kind in NON_REENTRANT_TYPES:
        return "non-reentrant", f"which {reader.defaults_of} has non-reentrant for {kind}"
    if reader.has(key):
        value = reader.understood(key, reader.peek(key), switch)
        return ("reentrant" if value else "non-reentrant"), f"{key}: {str(value).lower()}"
    if reader.peek("activation_offloading") == "hidden_states" or on(
        reader.peek("selective_checkpointing")
    ):
        return "non-reentrant", f"which {reader.defaults_of} has non-reentrant with offload"
    return "reentrant", f"reentrant by default of {reader.defaults_of}"


def _loss(reader: Reader) -> Loss:
    """The loss that its plugins turn on."""
    plugins = plugins_of(reader)
    offered = {
        key: on(reader.peek(key))
        and (LIGER_PLUGIN in plugins or not key.startswith("liger_"))
        and (CUT_PLUGIN in plugins or not key.startswith("cut_"))
        for key in LOSSES
    }
    if CUT_PLUGIN in plugins and not reader.has("cut_cross_entropy"):
        offered["cut_cross_entropy"] = True
    asked = [key for key, chosen in offered.items() if chosen]
    if len(asked) > 1:
        raise UsageError(f"{reader.file} asks for several losses: {', '.join(asked)}; keep one")
    if not asked:
        reader.note("loss", "torch", None, f"default of {reader.defaults_of}")
        return "torch"
    given = asked[0] if reader.has(asked[0]) else "plugins"
    reader.note("loss", LOSSES[asked[0]], given, f"{asked[0]}: true")
    return LOSSES[asked[0]]


def _preparation(quantization: Quantization) -> KbitPreparation:
    """Norms, embeddings and head of a quantized base go back to 16 bits."""
    return "peft" if quantization == "none" else "none"


def _note_fixed(reader: Reader, quantization: Quantization) -> None:
    """Trace what no key says: how axolotl trains whatever the file holds."""
    fixed = {"loop": "trainer", "transformers": "5", "kbit_preparation": _preparation(quantization)}
    for name, value in fixed.items():
        reader.note(name, value, None, f"as {reader.defaults_of} trains")


def _job(reader: Reader) -> Job:
    """How long it lasts, and what kind of examples it learns from."""
    task, key = _task(reader)
    reader.note("task", task, key, f"the types of '{key}'")
    if on(reader.peek("max_steps")) and str(reader.peek("max_steps")) != "-1":
        reader.peek("num_epochs")
        return Job(task=task, steps=reader.take("steps", "max_steps", whole, None))
    return Job(task=task, epochs=reader.take("epochs", "num_epochs", _epochs, 1.0))


def _epochs(value: Any) -> float:
    if not amount(value):
        raise ValueError("write a number above 0")
    return amount(value)


def _task(reader: Reader) -> tuple[Task, str]:
    if reader.has("pretraining_dataset"):
        return "pretraining", "pretraining_dataset"
    found = reader.peek("datasets")
    rows = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    kinds = [str(row.get("type", "")) for row in rows]
    raw = bool(kinds) and all(kind.startswith(PRETRAINING_TYPES) for kind in kinds)
    return ("pretraining" if raw else "instruction"), "datasets"


TOOL = Tool(name="axolotl", title="axolotl", marks=marks, read=read, edits=edits)
