"""What must hold of every step time: more work takes no less, a faster card no more."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftadvisor.cost_model.rates import device_rates
from peftadvisor.cost_model.time import StepParts, step_parts
from peftadvisor.data.gpus import find_gpu, load_gpus
from peftadvisor.data.models import find_model
from peftadvisor.simulator.library import Variant
from peftadvisor.simulator.obtain import Simulated, obtain
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import GpuSpec, MethodSpec, TrainingSpec

GPUS = ("a100-80g", "l40s", "h100-sxm", "t4", "mi300x")
NEARLY = 1 + 1e-9
MODEL = "meta-llama/Llama-3.2-1B"


@cache
def simulated(rank: int | None) -> Simulated:
    method = MethodSpec(name="full")
    if rank:
        method = MethodSpec(name="lora").with_settings(rank=rank)
    training = TrainingSpec(micro_batch_size=2, seq_len=256)
    return obtain(Variant(find_model(MODEL), method, training, "flash"), exact=True)


def parts(
    gpu: GpuSpec, *, batch: int = 2, tokens: int = 256, layers: int = 16, rank: int | None = 16
) -> StepParts:
    uses = simulated(rank).recording.kernel_uses((batch, tokens, 1), [layers])
    training = TrainingSpec(micro_batch_size=batch, seq_len=tokens)
    return step_parts(uses, training, gpu, device_rates(gpu))


gpus = st.sampled_from(GPUS).map(find_gpu)
batches = st.integers(2, 64)
lengths = st.integers(1, 128).map(lambda n: 16 * n)
depths = st.integers(5, 80)


@settings(deadline=None, max_examples=60)
@given(gpu=gpus, batch=batches, more=batches, tokens=lengths, longer=lengths)
def test_more_tokens_take_longer(
    gpu: GpuSpec, batch: int, more: int, tokens: int, longer: int
) -> None:
    batches_, lengths_ = sorted((batch, more)), sorted((tokens, longer))
    few = parts(gpu, batch=batches_[0], tokens=lengths_[0]).step_s
    assert few <= parts(gpu, batch=batches_[1], tokens=lengths_[0]).step_s * NEARLY
    assert few <= parts(gpu, batch=batches_[0], tokens=lengths_[1]).step_s * NEARLY


@settings(deadline=None, max_examples=40)
@given(gpu=gpus, batch=batches, tokens=lengths, layers=depths, deeper=depths)
def test_more_layers_and_ranks_take_longer(
    gpu: GpuSpec, batch: int, tokens: int, layers: int, deeper: int
) -> None:
    few, many = sorted((layers, deeper))
    shallow = parts(gpu, batch=batch, tokens=tokens, layers=few, rank=8).step_s
    assert shallow <= parts(gpu, batch=batch, tokens=tokens, layers=many, rank=8).step_s * NEARLY
    assert shallow <= parts(gpu, batch=batch, tokens=tokens, layers=few, rank=64).step_s * NEARLY


@st.composite
def kernels(draw: st.DrawFn) -> KernelUse:
    m, n, k = (draw(st.integers(1, 20_000)) for _ in range(3))
    dtype = draw(st.sampled_from(("bfloat16", "float16", "float32", "int8", "int64")))
    names = ("mm", "mul", "dequantize", "_foreach_mul_", "_scaled_dot_product_flash_attention")
    name = draw(st.sampled_from(names))
    multiplied = name == "mm" or "attention" in name
    return KernelUse(
        name=f"{name}.{dtype}",
        phase=draw(st.sampled_from([p for p in Phase if p != Phase.LOAD])),
        count=draw(st.integers(1, 500)),
        flops=2 * m * n * k if multiplied else 0,
        touched_bytes=draw(st.integers(0, 10**10)),
        shapes=(m, k, k, n) if name == "mm" else (),
    )


@settings(deadline=None, max_examples=150)
@given(
    gpu=gpus,
    uses=st.lists(kernels(), max_size=20),
    micro=st.integers(1, 8),
    bandwidth=st.floats(1, 10),
    flops=st.floats(1, 10),
)
def test_a_faster_card_is_never_slower_and_classes_sum_to_the_step(
    gpu: GpuSpec, uses: list[KernelUse], micro: int, bandwidth: float, flops: float
) -> None:
    training = TrainingSpec(gradient_accumulation_steps=micro)
    rates = device_rates(gpu)
    plain = step_parts(uses, training, gpu, rates)
    wider = replace(
        gpu, memory_bandwidth_bytes_per_s=int(gpu.memory_bandwidth_bytes_per_s * bandwidth)
    )
    faster = {dtype: flops * peak for dtype, peak in gpu.peak_flops_per_s.items()}
    assert step_parts(uses, training, wider, rates).step_s <= plain.step_s * NEARLY
    assert (
        step_parts(uses, training, replace(gpu, peak_flops_per_s=faster), rates).step_s
        <= plain.step_s * NEARLY
    )
    assert plain.step_s == pytest.approx(sum(plain.by_bound.values()))
    assert all(seconds >= 0 for seconds in plain.by_class.values())


def test_every_gpu_has_a_step_time() -> None:
    for gpu in load_gpus().values():
        assert 0 < parts(gpu).step_s < 1000, gpu.id
