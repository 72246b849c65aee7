"""Methods without backpropagation through the backbone show it: only layer outputs are saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from peftadvisor.data.models import find_model
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.depth import at_depth
from peftadvisor.simulator.step import simulate
from peftadvisor.simulator.trace import Event, Phase, Segment, layer_tag
from peftadvisor.specs import MethodSpec, TrainingSpec

BATCH, LENGTH, LAYERS = 2, 512, 4
HIDDEN = 4096
LAYER_OUTPUT = BATCH * LENGTH * HIDDEN * 2  # bf16


def saved_in_a_layer(method: str) -> list[int]:
    """Sizes of what was born in the second layer's forward pass and is held when it ends."""
    model = find_model("meta-llama/Llama-3.1-8B")
    short = replace(model, config=at_depth(model.config, {"num_hidden_layers": LAYERS}))
    training = TrainingSpec(micro_batch_size=BATCH, seq_len=LENGTH)
    trace = simulate(short, MethodSpec(name=method), training, Device((8, 0)))
    here = (np.asarray(trace.event_segment) == Segment.STEP_2) & (
        np.asarray(trace.event_phase) == Phase.FORWARD
    )
    kind, ref = np.asarray(trace.event_kind)[here], np.asarray(trace.event_ref)[here]
    held = set(ref[kind == Event.ALLOC]) - set(ref[kind == Event.FREE])
    inside = [n for n in held if trace.storage_tag[n] == layer_tag(0, 1)]
    return sorted((trace.storage_bytes[n] for n in inside), reverse=True)


@pytest.mark.parametrize("method", ["ladder-side", "attention-fusion", "lets"])
def test_nothing_of_the_backbone_is_saved_but_layer_outputs(method: str) -> None:
    saved = saved_in_a_layer(method)
    assert [size for size in saved if size >= LAYER_OUTPUT] in ([], [LAYER_OUTPUT])
    # What is smaller is the side network's own, narrower by a factor of 8 and more.
    assert sum(saved) <= 2 * LAYER_OUTPUT


def test_lora_saves_much_more() -> None:
    # Inputs of both norms, queries, keys, values, gate and up (14336 wide): well over 4 outputs.
    assert len([size for size in saved_in_a_layer("lora") if size >= LAYER_OUTPUT]) > 4
