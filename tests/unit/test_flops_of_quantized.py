"""A quantized base under checkpointing: the same FLOPs are recomputed as with a plain one."""

from __future__ import annotations

import pytest

from peftadvisor.advisor import estimate
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.profiles import Flops
from peftadvisor.specs import Budget, Checkpointing, MethodSpec, Quantization, RunSpec, TrainingSpec


def flops(method: str, quantization: Quantization, checkpointing: Checkpointing) -> Flops:
    training = TrainingSpec(
        micro_batch_size=2,
        seq_len=512,
        quantization=quantization,
        gradient_checkpointing=checkpointing,
    )
    run = RunSpec(
        model=find_model("meta-llama/Llama-3.2-1B"),
        method=MethodSpec(name=method),
        training=training,
        gpu=find_gpu("a100-40g"),
    )
    return estimate(run, budget=Budget()).flops


@pytest.fixture(scope="module")
def plain() -> Flops:
    return flops("lora-all", "none", "non-reentrant")


def test_recomputation_is_told_from_backward(plain: Flops) -> None:
    """QLoRA's head and norms are in fp32; what is recomputed is the layers, the same products."""
    quantized = flops("qlora", "nf4-dq", "non-reentrant")
    assert quantized.recompute == pytest.approx(plain.recompute, rel=0.01)
    assert quantized.backward == pytest.approx(plain.backward, rel=0.02)


def test_nothing_is_recomputed_without_checkpointing() -> None:
    assert flops("qlora", "nf4-dq", "none").recompute == 0
