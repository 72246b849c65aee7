"""Recordings against direct simulation at random (batch, lengths, depth) points, to the byte.

Two points for each of ten models; POINTS_PER_MODEL=10 in the environment checks a hundred.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from peftadvisor.data.models import find_model
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.deepening import verify
from peftadvisor.simulator.depth import at_depth, depth_fields, period
from peftadvisor.simulator.parts import BASE_UNITS
from peftadvisor.simulator.record import record
from peftadvisor.simulator.recorder import InexactError
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.recording_files import pack, unpack
from peftadvisor.simulator.regimes import Regime, regime_of, windows
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import Event, Segment, Trace, held_bytes
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

AMPERE = Device((8, 0))
POINTS_PER_MODEL = int(os.environ.get("POINTS_PER_MODEL", "2"))
# Model, method, checkpointing, longest length, and changes that keep the full depth short.
CASES: dict[str, tuple[str, str, str, int, dict[str, Any]]] = {
    "T5": ("t5-small", "lora", "none", 700, {}),
    "Llama": ("meta-llama/Llama-3.2-1B", "lora-all", "none", 1500, {}),
    "Gemma 3": (
        "google/gemma-3-1b-it",
        "lora",
        "none",
        600,
        {"layer_types": ["sliding_attention", "full_attention"] * 5, "num_hidden_layers": 10},
    ),
    "Mistral": ("mistralai/Mistral-7B-v0.1", "lora", "none", 600, {"sliding_window": 320}),
    "BERT": ("google-bert/bert-base-uncased", "full", "none", 512, {}),
    "BART": ("facebook/bart-base", "full", "none", 900, {}),
    "Mixtral": ("mistralai/Mixtral-8x7B-v0.1", "lora", "none", 900, {}),
    "Qwen3": ("Qwen/Qwen3-0.6B", "full", "non-reentrant", 1500, {}),
    "ViT": ("google/vit-base-patch16-224", "lora", "none", 900, {}),
    "Whisper": ("openai/whisper-base", "lora", "none", 440, {}),
}


@cache
def model_of(case: str) -> ModelSpec:
    name, _, _, _, changes = CASES[case]
    model = find_model(name)
    return replace(model, config={**model.config, **changes})


def settings(case: str) -> tuple[MethodSpec, TrainingSpec]:
    _, method, checkpointing, _, _ = CASES[case]
    training = TrainingSpec(gradient_checkpointing=checkpointing)  # type: ignore[arg-type]
    return MethodSpec(name=method), training


@cache
def recording_of(case: str, regime: Regime) -> Recording | None:
    """The recording for lengths of both kinds, or of the regime's; None: declared inexact."""
    for piece in regime.recorded():
        try:
            made = record(model_of(case), *settings(case), AMPERE, piece)
        except InexactError:
            continue
        return unpack(pack(made))
    return None


def direct(case: str, point: tuple[int, int, int], units: list[int]) -> Trace:
    model = model_of(case)
    fields = depth_fields(model.config)
    patterns = [period(model.config, field) for field in fields]
    layers = {f: p + n * w for f, (p, w), n in zip(fields, patterns, units, strict=True)}
    method, training = settings(case)
    b, s, t = point
    training = replace(training, micro_batch_size=b, seq_len=s, target_len=t)
    short = replace(model, config=at_depth(model.config, layers))
    return simulate(short, method, training, AMPERE)


def traced_peak_and_flops(trace: Trace) -> tuple[int, int]:
    kind, ref = np.asarray(trace.event_kind), np.asarray(trace.event_ref)
    segment = np.asarray(trace.event_segment)
    peak = held_bytes(trace, block_bytes=512).max()
    steady = np.isin(segment, (Segment.STEP_2, Segment.UPDATE_2)) & (kind == Event.KERNEL)
    return int(peak), sum(trace.kernel_flops[row] for row in ref[steady])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_recording_equals_direct_simulation(case: str) -> None:
    chance = random.Random(case)
    longest = CASES[case][3]
    stacks = len(depth_fields(model_of(case).config))
    inexact = 0
    for _ in range(POINTS_PER_MODEL):
        lengths = [chance.randint(8, longest) // chance.choice((1, 1, 16)) for _ in range(2)]
        s, t = (n if chance.random() < 0.5 else max(16, n // 16 * 16) for n in lengths)
        point = (chance.choice((1, 2, 3, 6)), s, t)
        units = [chance.randint(BASE_UNITS, BASE_UNITS + 3) for _ in range(stacks)]
        recording = recording_of(case, regime_of(point, model_of(case).config))
        if recording is None:
            inexact += 1
            continue
        trace = direct(case, point, units)
        peak, flops = traced_peak_and_flops(trace)
        verify(recording, trace, point, units)
        ours = recording.kernel_uses(point, units)
        assert recording.allocated_peak(point, units) == peak, (case, point, units)
        assert sum(use.count * use.flops for use in ours) == flops, (case, point, units)
    print(f"{case}: {POINTS_PER_MODEL - inexact} exact, {inexact} declared inexact")
    assert inexact <= POINTS_PER_MODEL // 2


def test_windows_make_pieces() -> None:
    assert windows(model_of("Mistral").config) == (320,)
    assert regime_of((2, 320, 128), model_of("Mistral").config).beyond_window == 320
    assert regime_of((2, 319, 128), model_of("Mistral").config).beyond_window == 0
