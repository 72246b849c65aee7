"""What fp16 takes beside bf16; ``benchmarks/fp16_as_bf16.py`` asks every bundled model type."""

from __future__ import annotations

import pytest

from peftadvisor.data.models import find_model
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.obtain import FP16_AS_BF16
from peftadvisor.simulator.record import record_point
from peftadvisor.specs import DType, MethodSpec, TrainingSpec


def peak(name: str, dtype: DType) -> int:
    training = TrainingSpec(micro_batch_size=2, seq_len=128, target_len=64, dtype=dtype)
    model = find_model(name)
    recording = record_point(model, MethodSpec(name="lora"), training, Device((8, 0)))
    return recording.allocated_peak((2, 128, 64), recording.facts["units"])


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M", "google-t5/t5-small"])
def test_only_what_takes_as_much_is_answered_by_bf16(name: str) -> None:
    alike = peak(name, "bf16") == peak(name, "fp16")
    assert alike == (find_model(name).model_type in FP16_AS_BF16)
