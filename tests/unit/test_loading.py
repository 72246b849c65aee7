"""What loading the weights takes: tensor by tensor, from made-up recordings and real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from peftadvisor.advisor import estimate
from peftadvisor.advisor.estimating import variant_of, with_implied_quantization
from peftadvisor.cost_model.loading import Loading, _weights, cast_on_card, loading
from peftadvisor.cost_model.memory import predict_memory
from peftadvisor.cuda.allocator import replay
from peftadvisor.cuda.outside import context_bytes
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Simulated, obtain
from peftadvisor.simulator.parts import BASE_UNITS
from peftadvisor.simulator.recorder import compile_recording
from peftadvisor.simulator.trace import NO_LAYER, Event, Owner, Phase, Segment, Trace, layer_tag
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec

UNITS = 8
KIB = 1024

Place = tuple[int, Sequence[int]]
"""A layer, or -1, and bytes of the weights that are loaded there."""


def recorded(
    *places: Place, product: tuple[int, ...] = (2, 1, 1, 2), kind: str = "mm"
) -> Simulated:
    """A run of eight layers that loads weights in this order, an adapter too, and computes once."""
    trace = Trace(stack_units=(BASE_UNITS,))

    def happen(event: Event, ref: int, layer: int, segment: Segment) -> None:
        trace.event_kind.append(event)
        trace.event_ref.append(ref)
        trace.event_tag.append(NO_LAYER if layer < 0 else layer_tag(0, layer))
        trace.event_segment.append(segment)
        trace.event_phase.append(Phase.LOAD if segment == Segment.LOAD else Phase.FORWARD)

    loads = [(layer, size, Owner.WEIGHT) for layer, sizes in places for size in sizes]
    for layer, size, owner in [*loads, (-1, 512, Owner.ADAPTER)]:
        trace.storage_bytes.append(size)
        trace.storage_owner.append(owner)
        trace.storage_tag.append(NO_LAYER if layer < 0 else layer_tag(0, layer))
        happen(Event.ALLOC, len(trace.storage_bytes) - 1, layer, Segment.LOAD)
    for segment in (Segment.STEP_1, Segment.STEP_2):
        trace.kernel_name.append(kind)
        trace.kernel_flops.append(8)
        trace.kernel_touched.append((8,))
        trace.kernel_shapes.append(product)
        happen(Event.KERNEL, len(trace.kernel_name) - 1, -1, segment)
    trace.parameters_by_tag = {NO_LAYER: (1, 1, 1), 0: (1, 1, 1)}
    point = (1, 16, 16)
    facts: dict[str, Any] = {"units": [UNITS], "virtual_tokens": 0}
    return Simulated(compile_recording([trace], [point], False, facts), point, False, "a script")


def everywhere(*sizes: int) -> list[Place]:
    return [(layer, sizes) for layer in range(BASE_UNITS)]


def run_of(gpus: int = 1, sharding: Any = "ddp", config: Any = None, **training: Any) -> RunSpec:
    model = find_model("t5-small")
    return RunSpec(
        model=replace(model, config=config or {"model_type": "llama"}),
        method=MethodSpec(name="lora"),
        training=TrainingSpec(**training),
        gpu=find_gpu("a100-80g"),
        gpus=gpus,
        sharding=sharding,
    )


def found(how: Loading | None) -> tuple[int, str]:
    assert how is not None
    replayed = replay(how.events, how.sizes)
    assert replayed.oom_event is None
    assert replayed.reserved_peak_bytes >= how.allocated_peak_bytes
    return how.allocated_peak_bytes, how.during


# Embeddings and head of 16,384 elements in fp32; per layer a norm of 256 in fp32 and a weight of
# 65,536 elements in 4 bits, with a scale per 64 of them.
ROOT, NORM, PACKED, ELEMENTS = 64 * KIB, KIB, 32 * KIB, 64 * KIB
SCALES = ELEMENTS // 64


def four_bit(*constants: int) -> Simulated:
    return recorded((-1, [ROOT]), *everywhere(PACKED, NORM), (-1, [ROOT]), *everywhere(*constants))


def test_nf4_is_quantized_one_by_one() -> None:
    """All that is loaded in bf16 or packed, and the last weight's elements in bf16.

    Root 2 · 32 KiB, norms 8 · 512 B, packed 8 · 32 KiB, scales 8 · 4 KiB, codes 8 · 512 B (64 B
    rounded): 368,640 B. Besides: 2 · 65,536 B. Preparation would end at 8 · (32 + 1 + 4 + 0.5) KiB
    + 2 · 64 KiB + half of the head = 471,040 B, less.
    """
    nf4 = four_bit(4 * SCALES, 64)
    assert found(loading(nf4, run_of(quantization="nf4"))) == (368_640 + 131_072, "quantizing")


def test_double_quantization_has_its_scales_twice_besides() -> None:
    """Scales of a byte, 1 KiB; code 512 B, offset 512 B, 4 outer scales 512 B, outer code 1 KiB.

    8 · (32 + 0.5 + 1 + 0.5 + 0.5 + 0.5 + 1) KiB + 64 KiB = 360,448 B; besides: 2 · 65,536 B and
    2 · 4 · 1024 B.
    """
    dq = four_bit(SCALES, 64, 4, 16, 1024)
    expected = 360_448 + 131_072 + 8192
    assert found(loading(dq, run_of(quantization="nf4-dq"))) == (expected, "quantizing")


def test_int8_has_a_copy_in_fp16_besides() -> None:
    """Weights of 256 × 256 in a byte each: 8 · 64 KiB, and 4 bytes an element besides.

    Scales of 256 rows count as weights in bf16: 8 · 512 B. Root of 2 · 16 KiB, norms as before.
    """
    rows = recorded(
        (-1, [ROOT // 2]),
        *everywhere(ELEMENTS, NORM),
        (-1, [ROOT // 2]),
        *everywhere(4 * 256),
        product=(16, 256, 256, 256),
        kind="int8_product.int32",
    )
    expected = 8 * 65_536 + 8 * 512 + 32_768 + 8 * 512 + 4 * 65_536
    assert found(loading(rows, run_of(quantization="int8"))) == (expected, "quantizing")


def large_head(size: int = 2**20) -> Simulated:
    """The same in nf4 with embeddings and a head of 262,144 elements, 1 MiB each in fp32."""
    return recorded(
        (-1, [size]), *everywhere(PACKED, NORM), (-1, [size]), *everywhere(4 * SCALES, 64)
    )


# Packed, norms in fp32, scales and codes: 8 · (32 + 1 + 4 + 0.5) KiB.
LAYERS = 8 * (32 * KIB + KIB + 4 * KIB + 512)


def test_preparation_holds_the_last_tensor_twice() -> None:
    """Both in fp32, 2 MiB, and the head's 512 KiB of bf16 that have just been cast."""
    expected = LAYERS + 2 * 2**20 + 2**19
    assert found(loading(large_head(), run_of(quantization="nf4"))) == (expected, "preparing")


def test_trl_narrows_after_preparation() -> None:
    """Recorded in bf16, but they were in fp32 in between; vocabulary 1024, width 256."""
    config = {"model_type": "llama", "vocab_size": 1024, "hidden_size": 256}
    run = run_of(quantization="nf4", kbit_preparation="trl", config=config)
    expected = LAYERS + 2 * 2**20 + 2**19
    assert found(loading(large_head(2**19), run)) == (expected, "preparing")


def test_what_is_not_prepared_keeps_its_width() -> None:
    """Norms recorded in bf16 stay so: 8 · (32 + 1 + 4 + 0.5) KiB, 1 MiB, and 128 KiB besides."""
    run = run_of(quantization="nf4", kbit_preparation="none")
    assert found(loading(large_head(2**19), run)) == (LAYERS + 2**20 + 131_072, "quantizing")


def test_fp32_is_not_widened() -> None:
    """dtype fp32: 2 MiB of fp32 from the start, and the weight's 4 bytes an element besides."""
    run = run_of(quantization="nf4", dtype="fp32")
    expected = LAYERS + 2 * 2**20 + 4 * ELEMENTS
    assert found(loading(large_head(), run)) == (expected, "quantizing")


def test_casting_on_the_card_begins_with_all_in_fp32() -> None:
    """Embeddings 128 KiB in bf16 first: 2 · (128 + 8 · 64 + 32) KiB, and 128 KiB more."""
    plain = recorded((-1, [128 * KIB]), *everywhere(64 * KIB), (-1, [32 * KIB]))
    expected = 2 * (128 + 8 * 64 + 32) * KIB + 128 * KIB
    assert found(cast_on_card(plain, run_of())) == (expected, "casting")
    assert cast_on_card(plain, run_of(dtype="fp32")) is None
    assert cast_on_card(plain, run_of(quantization="nf4")) is None
    assert cast_on_card(plain, run_of(gpus=2, sharding="fsdp")) is None


def test_merged_experts_are_there_twice() -> None:
    """Expert tensors of 64 and 32 KiB a layer: in the last, the larger one and what it is made of.

    Embeddings, seven layers and that: its smaller one comes after.
    """
    experts = recorded((-1, [128 * KIB]), *everywhere(64 * KIB, 32 * KIB))
    mixtral = {"model_type": "mixtral"}
    expected = (128 + 7 * 96 + 2 * 64) * KIB
    assert found(loading(experts, run_of(config=mixtral))) == (expected, "merging experts")
    assert loading(experts, run_of(config=mixtral, transformers="4")) is None
    assert loading(experts, run_of(config={"model_type": "gpt_oss"})) is None


def test_nothing_is_said_where_nothing_is_converted() -> None:
    plain = recorded((-1, [128 * KIB]), *everywhere(64 * KIB))
    assert loading(plain, run_of()) is None
    assert loading(plain, run_of(quantization="gptq")) is None
    divided = run_of(quantization="nf4", gpus=2, sharding="zero-3")
    assert loading(four_bit(4 * SCALES, 64), divided) is None


def answer(model: str, method: str, gpu: str, **training: Any) -> Estimate:
    return estimate(
        RunSpec(
            model=find_model(model),
            method=MethodSpec(name=method),
            training=TrainingSpec(**training),
            gpu=find_gpu(gpu),
        ),
        budget=Budget(),
    )


SHORT = {"seq_len": 64, "gradient_checkpointing": "non-reentrant"}


def test_a_run_that_loading_decides() -> None:
    """Llama-3.1-8B, 64 tokens: embeddings and head of 128,256 · 4,096 elements in fp32.

    The rest of them is packed: 6,979,321,856 elements in 4 bits, their scales a byte per 64 and
    4 bytes per 16,384; per weight an offset, a code and an outer code, 512 + 512 + 1024 B. Norms:
    65 · 4,096 elements. The head's bf16 is there until it is cast.
    """
    run = answer("meta-llama/Llama-3.1-8B", "qlora", "rtx-4090", **SHORT)
    head, packed, weights = 128_256 * 4096, 6_979_321_856, 7 * 32
    expected = packed // 2 + packed // 64 + packed // 4096 + weights * 2048
    expected += 2 * 4 * head + 2 * head + 65 * 4 * 4096
    memory = run.memory
    # the rotary frequencies, 64 in fp32, and their copy
    assert memory.allocated_peak_bytes == expected + 2 * 512
    assert (memory.peak_phase, memory.peak_op) == ("load", "preparing")
    assert memory.breakdown.weights_bytes == memory.allocated_peak_bytes
    assert memory.breakdown.total_bytes == memory.device_peak_bytes
    assert memory.allocated_peak_bytes <= memory.reserved_peak_bytes <= memory.device_peak_bytes
    assert "loading the weights takes the most (preparing)" in run.reasons[-1]


def test_training_decides_where_it_takes_more() -> None:
    run = answer("meta-llama/Llama-3.1-8B", "qlora", "rtx-4090", seq_len=2048)
    assert run.memory.peak_phase != "load"
    assert not any("load" in reason for reason in run.reasons)


def test_the_verdict_is_of_the_larger_one() -> None:
    """On a card of 8.6 GiB training would find room; loading, of 8.25 GiB and context, does not."""
    gpu = replace(find_gpu("rtx-4090"), usable_bytes=int(8.6 * 2**30))
    run = RunSpec(
        model=find_model("meta-llama/Llama-3.1-8B"),
        method=MethodSpec(name="qlora"),
        training=TrainingSpec(**SHORT, quantization="nf4-dq"),
        gpu=gpu,
    )
    training = predict_memory(obtain(variant_of(run), exact=True), run)
    assert training.memory.device_peak_bytes < gpu.usable_bytes
    there = estimate(run, budget=Budget())
    assert there.oom_probability > training.oom_probability
    assert there.verdict == "oom"
    assert there.memory.device_peak_bytes > gpu.usable_bytes


def test_weights_in_fp32_are_warned_of_where_they_do_not_fit() -> None:
    """8.03 B parameters: 15 GiB in bf16 on a card of 24, 30 GiB in fp32, and the embeddings."""
    run = answer("meta-llama/Llama-3.1-8B", "lora", "rtx-4090", **SHORT)
    assert run.verdict == "fits"
    full = 4 * 8_030_261_248 + 2 * 128_256 * 4096 + context_bytes(find_gpu("rtx-4090")).typical
    assert run.reasons[-1] == (
        "load the weights in bf16: in fp32, to be cast on the card, they would take "
        f"{full / 2**30:.2f} GiB before training starts"
    )
    roomy = answer("meta-llama/Llama-3.1-8B", "lora", "a100-80g", **SHORT)
    assert not any("fp32" in reason for reason in roomy.reasons)


@pytest.mark.parametrize("method", ["qlora", "lora"])
def test_a_recording_tells_its_weights(method: str) -> None:
    """What is loaded in the end is what training holds as weights."""
    run = with_implied_quantization(
        RunSpec(
            model=find_model("Qwen/Qwen2.5-0.5B"),
            method=MethodSpec(name=method),
            training=TrainingSpec(),
            gpu=find_gpu("l40s"),
        )
    )
    simulated = obtain(variant_of(run), exact=True)
    weights = _weights(simulated, run.training.quantization)
    rounded = -(-weights.size // 512) * 512 * weights.times
    assert int(rounded.sum()) == simulated.peak().by_owner[Owner.WEIGHT]
    # 24 layers of q, k, v, o (896 and 128 rows), gate, up and down (4864)
    expected = 24 * 896 * (2 * 896 + 2 * 128 + 3 * 4864) * (method == "qlora")
    assert int(np.dot(weights.packed, weights.times)) == expected
