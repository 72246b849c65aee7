"""Losses and loops, by the bytes per token and vocabulary entry that they add to the peak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.simulator.attention import Device  # noqa: E402
from peftadvisor.simulator.step import prepare, simulate  # noqa: E402
from peftadvisor.simulator.trace import (  # noqa: E402
    Event,
    Owner,
    Segment,
    Trace,
    held_bytes,
)
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402
from tests.parity.tiny import LLAMA, T5_SMALL, spec  # noqa: E402

# Logits that dwarf all else: at 8 × 512 tokens, 2 bytes of each are 250 MiB.
WIDE = {**LLAMA, "vocab_size": 32000, "tie_word_embeddings": True}
TOKENS, VOCABULARY, WIDTH = 8 * 512, 32000, 256
TRAINING = TrainingSpec(
    micro_batch_size=8, seq_len=512, gradient_checkpointing="non-reentrant", loop="trainer"
)
LORA = MethodSpec(name="lora")


def run(**changes: Any) -> Trace:
    return simulate(spec(WIDE), LORA, replace(TRAINING, **changes), Device((8, 0)))


def held_of_logits(trace: Trace) -> float:
    """Most bytes of storages as large as logits at any time, per token and vocabulary entry."""
    least = 1.9 * TOKENS * VOCABULARY * 511 / 512
    held = most = 0
    for kind, ref in zip(trace.event_kind, trace.event_ref, strict=True):
        if kind == Event.KERNEL or trace.storage_bytes[ref] < least:
            continue
        held += trace.storage_bytes[ref] * (1 if kind == Event.ALLOC else -1)
        most = max(most, held)
    return most / (TOKENS * VOCABULARY)


@pytest.mark.parametrize(
    ("loss", "loop", "bytes_"),
    [
        ("torch", "plain", 14),  # bf16 2, log-softmax 4, two gradients 8
        ("torch", "trainer", 12),  # the bf16 logits are gone before backward
        ("fused", "trainer", 6),  # bf16 2, fp32 4; then the gradient in bf16 beside 4
    ],
)
def test_bytes_of_logits(loss: str, loop: str, bytes_: int) -> None:
    assert held_of_logits(run(loss=loss, loop=loop)) == pytest.approx(bytes_, rel=0.002)


@pytest.mark.parametrize(
    ("version", "loss", "bytes_"),
    [
        ("4", "torch", 14),  # bf16 2, fp32 4, shifted 4, log-softmax 4
        ("4", "fused", 10),  # bf16 2, fp32 4, shifted 4
        ("4.45", "torch", 12),  # fp32 4, shifted 4, log-softmax 4
        ("4.45", "fused", 8),  # fp32 4, shifted 4
    ],
)
def test_bytes_of_logits_in_transformers_4(version: str, loss: str, bytes_: int) -> None:
    trace = run(loss=loss, loop="trainer", transformers=version)
    assert held_of_logits(trace) == pytest.approx(bytes_, rel=0.002)


def test_fused_linear_makes_logits_in_chunks() -> None:
    """⌈32000 / 256⌉ = 125 parts of 4096 tokens are 33, so chunks of 64 tokens: 3.9 MiB."""
    trace = run(loss="fused-linear")
    logits = [
        size
        for size, owner in zip(trace.storage_bytes, trace.storage_owner, strict=True)
        if owner == Owner.LOGITS
    ]
    assert max(logits) == 64 * VOCABULARY * 2
    products = [
        shapes
        for name, shapes in zip(trace.kernel_name, trace.kernel_shapes, strict=True)
        if VOCABULARY in shapes and name.startswith("mm")
    ]
    # Forward and the gradient of the hidden states, 64 chunks each, three micro-batches.
    assert len(products) == 2 * 64 * 3
    assert held_bytes(trace).max() < held_bytes(run(loss="fused")).max()


def test_a_trained_head_gets_its_gradient_from_the_fused_loss() -> None:
    training = replace(TRAINING, loss="fused-linear")
    trace = simulate(spec(WIDE), MethodSpec(name="full"), training, Device((8, 0)))
    gradients = {
        size
        for size, owner in zip(trace.storage_bytes, trace.storage_owner, strict=True)
        if owner == Owner.GRADIENT
    }
    assert VOCABULARY * WIDTH * 2 in gradients


def test_models_with_a_loss_of_their_own_are_refused() -> None:
    with pytest.raises(UsageError, match="--loss torch"):
        prepare(spec(T5_SMALL), LORA, replace(TRAINING, loss="fused"))


@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant", "reentrant"])
@pytest.mark.parametrize("amp", [False, True])
def test_no_activation_outlives_its_step(checkpointing: str, amp: bool) -> None:
    trace = run(gradient_checkpointing=checkpointing, amp=amp)
    live: set[int] = set()
    for kind, ref, segment in zip(
        trace.event_kind, trace.event_ref, trace.event_segment, strict=True
    ):
        if segment == Segment.STEP_2:
            break
        if kind == Event.ALLOC and segment == Segment.STEP_1:
            live.add(ref)
        elif kind == Event.FREE:
            live.discard(ref)
    kept = (Owner.GRADIENT, Owner.WORKSPACE)
    assert not {ref for ref in live if trace.storage_owner[ref] not in kept}


MIXTRAL = {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "vocab_size": 512,
}


def test_experts_were_linear_layers_in_transformers_4() -> None:
    """Two experts of three layers in each of two layers, besides the four of attention."""
    lora = MethodSpec(name="qlora").with_settings(target_modules=("q_proj", "v_proj"))
    new, old = (
        prepare(spec(MIXTRAL), lora, replace(TRAINING, quantization="nf4", transformers=version))
        for version in ("5", "4")
    )
    packed = [m for m in old.model.modules() if hasattr(m, "compute_dtype")]
    assert len(packed) == 2 * (4 + 2 * 3)  # attention and experts; in 5 attention alone
    assert len([m for m in new.model.modules() if hasattr(m, "compute_dtype")]) == 2 * 4
    assert sum(getattr(p, "logical_numel", p.numel()) for p in old.model.parameters()) == sum(
        getattr(p, "logical_numel", p.numel()) for p in new.model.parameters()
    )


def test_experts_in_one_product_count_as_many_flops_as_one_by_one() -> None:
    new, old = (
        simulate(
            spec(MIXTRAL),
            MethodSpec(name="full"),
            replace(TRAINING, transformers=version),
            Device((8, 0)),
        )
        for version in ("5", "4")
    )
    assert any("grouped" in name for name in new.kernel_name)
    assert not any("grouped" in name for name in old.kernel_name)
    assert sum(new.kernel_flops) == sum(old.kernel_flops)
