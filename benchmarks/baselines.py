"""What a user would compute without us: the bucket formula for memory, the spec roofline for time.

Pure functions of a run and its number of trained parameters; decoder-only models. Neither has a
constant that was fitted to anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.specs import DTYPE_BYTES, ModelSpec, RunSpec

BYTES_PER_TRAINED = 16
"""Weight 2, gradient 2, fp32 copy 4, two moments 8: ZeRO, arXiv 1910.02054, section 3.1."""
QUANTIZED_BYTES: Mapping[str, float] = {"nf4": 4.5 / 8, "nf4-dq": 4.127 / 8, "int8": 1.0}
"""Per parameter, scales included: QLoRA, arXiv 2305.14314 (0.5 and 0.127 bits)."""
TOUCHED_PER_TRAINED = 7
"""AdamW reads weight, gradient and two moments, and writes all but the gradient."""
ADAPTER_BYTES = 4
"""PEFT makes adapters in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """h, L, a and what multiplies: ``active`` parameters are those that a token meets."""

    parameters: int
    active: int
    hidden: int
    layers: int
    heads: int


def bucket_bytes(run: RunSpec, trained: int) -> int:
    """Weights + 16 bytes per trained parameter + saved activations.

    Weights lie at their dtype, or all of them at the quantization's; trained ones count among the
    16. Activations by Korthikanti et al., arXiv 2205.05198: s b h (34 + 5 a s / h) bytes a layer,
    without the second term where attention is fused, and 2 s b h with checkpointing. Logits are
    left out, as in most calculators (they are 14 V bytes per token), and so are allocator,
    workspaces and context.
    """
    shape, training = shape_of(run.model), run.training
    tokens = training.micro_batch_size * training.seq_len
    if training.gradient_checkpointing != "none":
        per_layer = 2 * tokens * shape.hidden
    else:
        per_layer = 34 * tokens * shape.hidden
        if training.attention == "eager":
            per_layer += 5 * shape.heads * training.seq_len * tokens
    weights = 0 if run.method.name == "full" else _weight_bytes(run, shape)
    return round(weights + BYTES_PER_TRAINED * trained + shape.layers * per_layer)


def roofline_seconds(run: RunSpec, trained: int) -> float:
    """The larger of FLOPs / peak and bytes / bandwidth of one optimizer step, by the catalog.

    FLOPs: 2 N D forward, 2 N D for the gradients of activations, 2 N D more for those of weights
    in full fine-tuning, 2 N D to recompute with checkpointing; N are the parameters of matmuls
    that a token meets (no input embedding, head included), D the tokens of the step. Attention's
    own products are left out, as in 6 N D. Bytes: the weights once in every pass, and what AdamW
    touches.
    """
    shape, training, gpu = shape_of(run.model), run.training, run.gpu
    peak = gpu.peak_flops_per_s.get(training.dtype)
    if peak is None:
        raise UsageError(f"the catalog has no {training.dtype} rate of {gpu.id}")
    full = run.method.name == "full"
    passes = 2 + (training.gradient_checkpointing != "none")
    micro_batches = training.gradient_accumulation_steps
    tokens = micro_batches * training.micro_batch_size * training.seq_len
    flops = 2 * (passes + full) * shape.active * tokens
    width = DTYPE_BYTES[training.dtype] if full else ADAPTER_BYTES
    moved = micro_batches * passes * _weight_bytes(run, shape)
    moved += TOUCHED_PER_TRAINED * width * trained
    return max(flops / peak, moved / gpu.memory_bandwidth_bytes_per_s)


def shape_of(model: ModelSpec) -> Shape:
    """The sizes that the formulas ask for.

    Raises:
        UsageError: an encoder-decoder, or a model of unknown size.
    """
    config = model.config
    if config.get("is_encoder_decoder") or model.parameters is None:
        raise UsageError("the formulas are for decoder-only models of known size")
    hidden = _first(config, "hidden_size", "n_embd")
    layers = _first(config, "num_hidden_layers", "n_layer")
    embedding = 0 if config.get("tie_word_embeddings", True) else config["vocab_size"] * hidden
    experts = config.get("num_local_experts") or 0
    idle = max(0, experts - config.get("num_experts_per_tok", 0))
    per_expert = 3 * hidden * config["intermediate_size"] if experts else 0
    return Shape(
        parameters=model.parameters,
        active=model.parameters - embedding - layers * idle * per_expert,
        hidden=hidden,
        layers=layers,
        heads=_first(config, "num_attention_heads", "n_head"),
    )


def _weight_bytes(run: RunSpec, shape: Shape) -> float:
    training = run.training
    return shape.parameters * QUANTIZED_BYTES.get(
        training.quantization, DTYPE_BYTES[training.dtype]
    )


def _first(config: Mapping[str, Any], *keys: str) -> int:
    for key in keys:
        if key in config:
            return int(config[key])
    raise UsageError(f"the config has none of {', '.join(keys)}")
