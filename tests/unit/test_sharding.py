"""Data parallel runs on several GPUs: what one of them holds, and what they wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from peftadvisor.advisor import estimate
from peftadvisor.cost_model.communication import ALPHA_S, exposed_seconds
from peftadvisor.cost_model.kernel_classes import Floats
from peftadvisor.cost_model.sharding import exchanged, shard
from peftadvisor.cuda.outside import nccl_bytes
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.links import link_bytes_per_s
from peftadvisor.data.models import find_model
from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.simulator.editing import walks
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import BASE_UNITS
from peftadvisor.simulator.recorder import compile_recording, flattened
from peftadvisor.simulator.trace import NO_LAYER, Event, Owner, Phase, Segment, Trace, layer_tag
from peftadvisor.specs import Budget, MethodSpec, RunSpec, Sharding, TrainingSpec
from peftadvisor.units import MIB

ROOT, LAYER, INPUT = 8192, 2048, 512
"""Bytes of weights outside the layers, of one layer's, and of what a layer keeps from forward."""
UNITS = 8
MICRO_BATCHES = {
    Segment.STEP_1: Segment.UPDATE_1,
    Segment.STEP_2: None,
    Segment.ACCUMULATE: Segment.UPDATE_2,
}


class Script:
    """Writes a trace: five layers, each with one weight, which keeps one input from forward."""

    def __init__(self) -> None:
        self.trace = Trace(stack_units=(BASE_UNITS,))
        self.tag, self.segment, self.phase = NO_LAYER, Segment.LOAD, Phase.LOAD

    def event(self, kind: Event, ref: int) -> None:
        self.trace.event_kind.append(kind)
        self.trace.event_ref.append(ref)
        self.trace.event_tag.append(self.tag)
        self.trace.event_segment.append(self.segment)
        self.trace.event_phase.append(self.phase)

    def at(self, layer: int, segment: Segment, phase: Phase) -> None:
        self.tag = NO_LAYER if layer < 0 else layer_tag(0, layer)
        self.segment, self.phase = segment, phase

    def make(self, size: int, owner: Owner) -> int:
        self.trace.storage_bytes.append(size)
        self.trace.storage_owner.append(owner)
        self.trace.storage_tag.append(self.tag)
        row = len(self.trace.storage_bytes) - 1
        self.event(Event.ALLOC, row)
        return row

    def free(self, row: int) -> None:
        self.event(Event.FREE, row)

    def compute(self) -> None:
        self.trace.kernel_name.append("aten::mm")
        self.trace.kernel_flops.append(8)
        self.trace.kernel_touched.append((8,))
        self.trace.kernel_shapes.append((2, 1, 1, 2))
        self.event(Event.KERNEL, len(self.trace.kernel_name) - 1)


def played(*, trains_root: bool = True, layers: bool = True) -> Simulated:
    """Two steps and an update each, all layers trained in full, at eight layers."""
    script, sizes = Script(), [(-1, ROOT), *((n, LAYER) for n in range(BASE_UNITS))]
    for layer, size in sizes:
        script.at(layer, Segment.LOAD, Phase.LOAD)
        script.make(size, Owner.WEIGHT)
    trained = sizes if trains_root else sizes[1:]
    made_states, gradients = False, dict[int, int]()
    for segment, update in MICRO_BATCHES.items():
        inputs = []
        for layer in range(BASE_UNITS):
            script.at(layer, segment, Phase.FORWARD)
            script.compute()
            inputs.append(script.make(INPUT, Owner.ACTIVATION))
        script.at(-1, segment, Phase.LOSS)
        script.compute()
        for layer, size in reversed(trained):
            script.at(layer, segment, Phase.BACKWARD)
            script.compute()
            made = script.make(size, Owner.GRADIENT)
            if segment == Segment.ACCUMULATE:  # added to the one that there is
                script.free(made)
            else:
                gradients[layer] = made
            if layer >= 0:
                script.free(inputs[layer])
        for layer, size in trained if update else ():
            script.at(layer, update or segment, Phase.OPTIMIZER)
            if not made_states:
                script.make(2 * size, Owner.OPTIMIZER)
            script.free(gradients[layer])
        made_states = made_states or update is not None
    counts = dict.fromkeys((NO_LAYER,), (ROOT, ROOT * trains_root, ROOT * trains_root))
    script.trace.parameters_by_tag = {**counts, 0: (LAYER, LAYER, LAYER)}
    facts: dict[str, Any] = {"units": [UNITS] if layers else [], "virtual_tokens": 0}
    trace = script.trace if layers else flattened(script.trace)
    point = (1, 16, 16)
    return Simulated(compile_recording([trace], [point], False, facts), point, False, "a script")


def run_of(sharding: Sharding, gpus: int = 2, **training: Any) -> RunSpec:
    return RunSpec(
        model=find_model("t5-small"),
        method=MethodSpec(name="lora"),
        training=TrainingSpec(**training),
        gpu=find_gpu("a100-80g"),
        gpus=gpus,
        sharding=sharding,
    )


# W = 8192 + 8 · 2048 = 24,576 of weights, as many of gradients, 2 W of optimizer states.
# ddp: W + 2 W + the gradients and their copy. zero-1: W + W + as many.
# zero-2: W + W, and at the end of backward 8 halves of a layer's gradients, the whole one outside
# the layers, and its half.
# zero-3: W/2 + W, what is gathered outside the layers, which is gone when that half is made, and
# gradients as before; in the first layer's backward 8192 + 4096 gathered, 7 · 1024 + 2048 of
# gradients and one input are less.
@pytest.mark.parametrize(
    ("sharding", "expected"),
    [
        ("ddp", 24_576 + 49_152 + 2 * 24_576),
        ("zero-1", 24_576 + 24_576 + 2 * 24_576),
        ("zero-2", 24_576 + 24_576 + 8 * 1024 + 8192 + 4096),
        ("zero-3", 12_288 + 24_576 + 8192 + 8 * 1024 + 8192),
        ("fsdp", 12_288 + 24_576 + 8192 + 8 * 1024 + 8192),
    ],
)
def test_what_each_stage_holds(sharding: Sharding, expected: int) -> None:
    there = shard(played(), run_of(sharding))
    assert there.allocated_peak() == expected
    assert there.peak().phase == Phase.BACKWARD


def test_layers_are_gathered_one_by_one() -> None:
    """One where something is frozen, two in backward where nothing is.

    Weights 12,288, states 16,384 (of layers alone), gathered 8192 and a layer's 2048; in the last
    layer played 7 · 1024 of gradients, 2048 of its own, and one input of 512.
    """
    frozen = shard(played(trains_root=False), run_of("fsdp"))
    expected = 12_288 + 16_384 + 8192 + 2048 + 7 * 1024 + 2048 + 512
    assert frozen.allocated_peak() == expected
    assert frozen.peak().by_owner[Owner.WEIGHT] == 12_288 + 8192 + 2048


def test_frozen_layers_under_reentrant_checkpointing_hold_their_inputs() -> None:
    """Seven layers hold an input and its gradient when the last one is played."""
    run = run_of("fsdp", gradient_checkpointing="reentrant")
    usual = shard(played(trains_root=False), run_of("fsdp")).allocated_peak()
    held = shard(played(trains_root=False), run).allocated_peak()
    assert held == usual + 7 * 2 * INPUT
    trained = shard(played(), run).allocated_peak()
    assert trained == shard(played(), run_of("fsdp")).allocated_peak()


@pytest.mark.parametrize("sharding", get_args(Sharding))
@pytest.mark.parametrize("accumulate", [False, True])
def test_the_expansion_holds_as_much_and_frees_what_there_is(
    sharding: Sharding, accumulate: bool
) -> None:
    run = run_of(sharding, gradient_checkpointing="reentrant")
    for trains_root in (False, True):
        there = replace(shard(played(trains_root=trains_root), run), accumulate=accumulate)
        events, sizes = there.expand()
        held = np.cumsum(np.sign(events) * sizes[np.abs(events) - 1])
        assert held.max() == there.allocated_peak()
        live: set[int] = set()
        for event in events.tolist():
            assert (event > 0) == (abs(event) not in live)
            live ^= {abs(event)}


@pytest.mark.parametrize("sharding", get_args(Sharding))
def test_one_gpu_divides_nothing(sharding: Sharding) -> None:
    alone = played()
    assert shard(alone, run_of(sharding, gpus=1)) is alone


@pytest.mark.parametrize("sharding", get_args(Sharding))
def test_more_gpus_never_need_more(sharding: Sharding) -> None:
    peaks = [shard(played(), run_of(sharding, gpus=n)).allocated_peak() for n in range(2, 10)]
    assert peaks == sorted(peaks, reverse=True)


def test_walks_go_both_ways() -> None:
    forward, backward = walks(played().recording, Segment.STEP_2)
    assert list(forward) == list(backward) == [0, 1, 2, 3, 4]
    assert np.diff(list(forward.values())).tolist() == [1] * 4
    assert np.diff(list(backward.values())).tolist() == [-1] * 4


def test_what_has_no_layers_is_not_gathered() -> None:
    run = played(layers=False)
    with pytest.raises(UnsupportedError, match="layer by layer"):
        shard(run, run_of("fsdp"))
    assert shard(run, run_of("zero-1")).allocated_peak() > 0


def test_layers_that_events_do_not_name() -> None:
    """Five layers, which are told by their sizes; one, and what is outside, is there throughout.

    Weights (8192 + 5 · 2048) / 2, states 5 · 2048, gathered 8192 + 2048; in the last layer played
    4 · 1024 of gradients, its own 2048 with the half that is made of it, and one input.
    """
    model = replace(find_model("t5-small"), config={"num_hidden_layers": BASE_UNITS})
    alone = played(trains_root=False, layers=False)
    there = shard(alone, replace(run_of("fsdp"), model=model))
    expected = 9216 + 10_240 + 10_240 + 4 * 1024 + 2048 + 1024 + 512
    assert there.allocated_peak() == expected
    # under reentrant checkpointing, four layers hold an input and its gradient
    reentrant = replace(run_of("fsdp", gradient_checkpointing="reentrant"), model=model)
    assert shard(alone, reentrant).allocated_peak() == expected + 4 * 2 * INPUT


def test_an_unknown_sharding() -> None:
    sharding: Any = "tensor"
    with pytest.raises(UsageError, match="sharding is 'tensor'; it must be one of ddp, fsdp"):
        run_of(sharding)


def test_what_is_exchanged() -> None:
    sent = exchanged(played(trains_root=False))
    assert (sent.weights_bytes, sent.gradient_bytes) == (24_576, 16_384)


def test_links() -> None:
    """350 of 450 GB/s one way on H100; A100 has two thirds; slots have PCIe."""
    assert link_bytes_per_s("h100-sxm") == pytest.approx(350e9)
    assert link_bytes_per_s("a100-80g") == pytest.approx(350e9 * 600 / 900)
    assert link_bytes_per_s("t4") == pytest.approx(12e9)
    assert link_bytes_per_s("nobody's") == link_bytes_per_s("l40s") == pytest.approx(24e9)


def seconds(**phases: float) -> Floats:
    return np.array([[phases.get(phase.name.lower(), 0.0)] for phase in Phase])


def exposed(run: RunSpec, busy: Floats) -> float:
    micro_batches = np.array([run.training.gradient_accumulation_steps])
    return float(exposed_seconds(run, played(), busy, micro_batches)[0])


def test_exposed_communication() -> None:
    """Half of 24,576 / 8 bytes per layer and collective; what a layer computes hides it."""
    run, bandwidth = run_of("fsdp"), link_bytes_per_s("a100-80g")
    gather = ALPHA_S + 24_576 / 8 / 2 / bandwidth
    # gathered in forward and backward, scattered in backward; only the first of each is seen
    hidden = exposed(run, seconds(forward=1.0, backward=1.0))
    assert hidden == pytest.approx(3 * gather)
    recomputed = run_of("fsdp", gradient_checkpointing="non-reentrant")
    busy = seconds(forward=1.0, backward=1.0, recompute=1.0)
    again = exposed(recomputed, busy)
    assert again == pytest.approx(4 * gather)
    # nothing to hide behind: all eight are seen
    bare = exposed(run, seconds(forward=1e-12, backward=1e-12))
    assert bare == pytest.approx(3 * 8 * gather)


def test_exposed_communication_of_other_stages() -> None:
    """Gradients fill one bucket of ddp: 2 · 24,576 / 2 bytes past each GPU, once a step."""
    busy, bandwidth = seconds(forward=1.0, backward=1.0), link_bytes_per_s("a100-80g")
    once = run_of("ddp", gradient_accumulation_steps=4)
    exchange = ALPHA_S + 24_576 / bandwidth
    assert exposed(once, busy) == pytest.approx(exchange)
    scatter = ALPHA_S + 24_576 / 8 / 2 / bandwidth
    update = ALPHA_S + 24_576 / 2 / bandwidth
    two = run_of("zero-2", gradient_accumulation_steps=4)
    assert exposed(two, busy) == pytest.approx(4 * scatter + update)
    one = run_of("zero-1")
    assert exposed(one, busy) == pytest.approx(exchange + update)


def test_nccl_takes_memory_where_there_are_several() -> None:
    assert nccl_bytes(1).high == 0
    assert nccl_bytes(2).typical == 544 * MIB
    for gpus in (2, 8):
        there = nccl_bytes(gpus)
        assert there.low < there.typical < there.high


@pytest.mark.parametrize("sharding", get_args(Sharding))
def test_a_bundled_run(sharding: Sharding) -> None:
    """Parts add up, each peak is at least the one within it, and twice the GPUs do not hurt."""
    two, four = (
        estimate(run_of(sharding, gpus=n, micro_batch_size=4), budget=Budget()) for n in (2, 4)
    )
    for memory in (two.memory, four.memory):
        assert memory.breakdown.total_bytes == memory.device_peak_bytes
        assert memory.allocated_peak_bytes <= memory.reserved_peak_bytes
        assert memory.reserved_peak_bytes <= memory.device_peak_bytes
    assert four.memory.allocated_peak_bytes <= two.memory.allocated_peak_bytes
    alone = estimate(run_of(sharding, gpus=1, micro_batch_size=4), budget=Budget())
    assert two.time.step_s > alone.time.step_s
    assert two.time.samples_per_s > alone.time.samples_per_s
    assert any(f"data parallel, {sharding}:" in reason for reason in two.reasons)
    assert two.to_dict()["run"]["sharding"] == sharding
