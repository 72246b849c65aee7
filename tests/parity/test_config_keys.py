"""Configs with one key are one run: what the key leaves out changes no allocation and no kernel."""

from __future__ import annotations

from typing import Any

import pytest

from peftadvisor.data.models import config_key
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.step import simulate
from peftadvisor.specs import MethodSpec, TrainingSpec
from tests.parity.tiny import LLAMA, spec

TRAINING = TrainingSpec(micro_batch_size=2, seq_len=96)
SCALED = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
QWEN = {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN["use_sliding_window"] = False


def played(config: dict[str, Any]) -> tuple[list[Any], ...]:
    trace = simulate(spec(config), MethodSpec(name="lora"), TRAINING, Device((8, 0)))
    return (
        list(trace.event_kind),
        list(trace.event_ref),
        list(trace.storage_bytes),
        list(trace.kernel_flops),
    )


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (LLAMA, {"max_position_embeddings": 4096, "rope_theta": 5e5, "rope_scaling": SCALED}),
        (LLAMA, {"rms_norm_eps": 1e-6, "initializer_range": 0.1, "pretraining_tp": 1}),
        (QWEN, {"sliding_window": 64, "max_window_layers": 2}),
    ],
)
def test_what_the_key_leaves_out(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert config_key({**base, **change}) == config_key(base)
    assert played({**base, **change}) == played(base)
