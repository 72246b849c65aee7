"""What an axolotl config asks for that the prediction leaves out. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Iterator

from peftadvisor.integrations.configs.axolotl_keys import (
    ATTENTION,
    ATTENTION_SWITCHES,
    CUT_PLUGIN,
    LEFT_OUT,
    LIGER_PLUGIN,
    LOSSES,
    on,
)
from peftadvisor.integrations.configs.reader import Reader, shown

_WITH_ADAPTER = ("lora_r", "lora_target_linear", "lora_target_modules", "peft_use_dora")


def plugins_of(reader: Reader) -> tuple[str, ...]:
    """The class names of the plugins that are listed."""
    found = reader.peek("plugins", [])
    listed = found if isinstance(found, list) else [found]
    return tuple(shown(str(name).rpartition(".")[2]) for name in listed)


def notes_of(reader: Reader, method: str) -> Iterator[str]:
    """Clauses on what of the file the prediction does not follow, or only by a stand-in."""
    for key, left_out in LEFT_OUT.items():
        if left_out.when(reader.peek(key)):
            yield left_out.text
    if str(reader.peek("gradient_checkpointing")).startswith("offload"):
        yield LEFT_OUT["activation_offloading"].text
    if not reader.has("adapter") and any(on(reader.peek(key)) for key in _WITH_ADAPTER):
        yield "LoRA's keys have no effect without 'adapter'"
    yield from _kernel_notes(reader, method)
    yield from _stand_ins(reader)
    attention = reader.peek("attn_implementation", "sdpa")
    sharded = on(reader.values.get("fsdp_config"))
    if method == "full" and attention in ("sdpa", "eager") and not sharded:
        yield "norms, embeddings and head are kept in fp32, which is left out"


def _kernel_notes(reader: Reader, method: str) -> Iterator[str]:
    """Axolotl's fused kernels of LoRA, which it turns on where no key speaks of them."""
    keys = [f"lora_{part}_kernel" for part in ("mlp", "qkv", "o", "embedding")]
    said = [reader.peek(key) for key in keys]
    eight = on(reader.peek("load_in_8bit"))
    default = all(value is None for value in said) and not eight
    if method not in ("full", "lisa") and (default or any(map(on, said))):
        by = f", on by default of {reader.defaults_of}," if default else ""
        yield f"fused kernels of LoRA{by} are left out: less memory than predicted"


def _stand_ins(reader: Reader) -> Iterator[str]:
    """Names that are predicted as another that needs as much memory."""
    old = next((ATTENTION_SWITCHES[key] for key in ATTENTION_SWITCHES if on(reader.peek(key))), "")
    name = str(reader.peek("attn_implementation", old)).lower()
    if ATTENTION.get(name, name) != name:
        yield f"attention by {name} is predicted as {ATTENTION[name]}"
    if str(reader.peek("optimizer")) == "adamw_torch_8bit":
        yield "torchao's 8-bit AdamW is predicted as bitsandbytes', whose states are as large"
    if str(reader.peek("bnb_config_kwargs.bnb_4bit_quant_type", "nf4")) != "nf4":
        yield "the 4-bit type is predicted as nf4, which is as large"
    yield from _loss_notes(reader)


def _loss_notes(reader: Reader) -> Iterator[str]:
    plugins = plugins_of(reader)
    cut = CUT_PLUGIN in plugins and reader.peek("cut_cross_entropy", True)
    if on(cut):
        yield "cut cross-entropy is predicted as Liger's fused linear cross-entropy"
    if on(reader.peek("chunked_cross_entropy")):
        yield "chunked cross-entropy is predicted as torch's"
    if on(reader.peek("flash_attn_cross_entropy")):
        yield "flash attention's cross-entropy is predicted as Liger's"
    if LIGER_PLUGIN not in plugins and any(
        on(reader.peek(key)) for key in LOSSES if key.startswith("liger_")
    ):
        yield "Liger's losses have no effect without its plugin"
    for name in plugins:
        if name not in (LIGER_PLUGIN, CUT_PLUGIN):
            yield f"what the plugin {name} changes is left out"
