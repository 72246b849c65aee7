"""Quantized layers and runs against those of bitsandbytes, where that is installed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
bitsandbytes = pytest.importorskip("bitsandbytes")

from torch import nn  # noqa: E402

from peftadvisor.profilers.allocations import recorded_allocations  # noqa: E402
from peftadvisor.profilers.checkpoints import checked_model  # noqa: E402
from peftadvisor.profilers.conformance import MODELS, TRAINING  # noqa: E402
from peftadvisor.profilers.instruments import flops  # noqa: E402
from peftadvisor.profilers.workload import Given, Workload  # noqa: E402
from peftadvisor.simulator.attention import Device  # noqa: E402
from peftadvisor.simulator.build import build_model  # noqa: E402
from peftadvisor.simulator.quantized import quantized_layer  # noqa: E402
from peftadvisor.simulator.quantized_layers import QuantizedLinear  # noqa: E402
from peftadvisor.simulator.step import Prepared, prepare, trace_run  # noqa: E402
from peftadvisor.simulator.trace import Phase, Trace, held_bytes  # noqa: E402
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402
from tests.parity.test_measured_runs import beside, flops_of  # noqa: E402
from tests.parity.tiny import spec  # noqa: E402

KINDS = ("nf4", "nf4-dq", "int8")
LORA = MethodSpec(name="lora-all")
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
RUNS = {**MODELS, "gpt2": GPT2}
LAYERS = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)


def of_bitsandbytes(rows: int, columns: int, double: bool) -> list[tuple[Any, Any]]:
    weight = bitsandbytes.nn.Params4bit(
        torch.randn(rows, columns, dtype=torch.bfloat16),
        requires_grad=False,
        compress_statistics=double,
        quant_type="nf4",
    ).to("cpu")
    state = weight.quant_state
    tensors = [weight.data, state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sorted((str(t.dtype), t.numel()) for t in tensors)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(256, 1024), (96, 100), (3, 5)])
def test_every_stored_tensor_of_a_4_bit_layer(rows: int, columns: int, double: bool) -> None:
    source = nn.Linear(columns, rows, bias=False, device="meta")
    layer = quantized_layer(source, "nf4-dq" if double else "nf4", torch.bfloat16)
    ours = sorted((str(t.dtype), t.numel()) for t in [layer.weight, *layer.buffers()])
    assert ours == of_bitsandbytes(rows, columns, double)


# -- Whole runs ----------------------------------------------------------------------------------


def settings(kind: Any, **more: Any) -> TrainingSpec:
    return replace(TRAINING, quantization=kind, **more)


def measured(model: str, training: TrainingSpec, given: Given | None = None) -> Workload:
    torch.set_num_threads(1)
    return Workload(spec(RUNS[model]), LORA, training, given=given or Given())


@cache
def simulated(model: str, training: TrainingSpec) -> tuple[Prepared, Trace]:
    prepared = prepare(spec(RUNS[model]), LORA, training)
    return prepared, trace_run(prepared, training, Device(None))


def loaded_bytes(trace: Trace) -> int:
    return int(held_bytes(trace)[list(trace.event_phase).index(Phase.FORWARD) - 1])


def paths(model: Any, kinds: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", RUNS)
def test_the_same_layers_are_quantized_to_the_same_bytes(model: str, kind: str) -> None:
    prepared, trace = simulated(model, settings(kind))
    run = measured(model, settings(kind))
    assert paths(run.model, LAYERS) == paths(prepared.model, QuantizedLinear)
    assert run.static_bytes() == loaded_bytes(trace)
    run.step()
    assert run.static_bytes() == loaded_bytes(trace)


@pytest.mark.parametrize("checkpointing", ["none", "non-reentrant"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", RUNS)
def test_simulated_equals_measured(model: str, kind: str, checkpointing: Any) -> None:
    training = settings(kind, gradient_checkpointing=checkpointing)
    trace = simulated(model, training)[1]
    held = recorded_allocations(measured(model, training), 2)
    off = abs(held_bytes(trace).max() - held.peak_bytes)
    assert off <= 0.001 * held.peak_bytes + beside(training)
    counted = flops(measured(model, training))
    assert flops_of(trace, Phase.FORWARD) == counted["forward"]
    assert flops_of(trace, Phase.BACKWARD, Phase.RECOMPUTE) == counted["backward"]


@pytest.mark.parametrize("kind", ["nf4", "nf4-dq"])
@pytest.mark.parametrize("model", RUNS)
def test_products_in_bf16(model: str, kind: str) -> None:
    training = settings(kind, dtype="bf16")
    held = recorded_allocations(measured(model, training), 2)
    trace = simulated(model, training)[1]
    assert held_bytes(trace).max() == pytest.approx(held.peak_bytes, rel=0.001)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_learns_and_the_base_stays(kind: str) -> None:
    run = measured("llama", settings(kind))
    for tensor in run.batch.values():
        tensor.remainder_(4)  # few kinds of tokens are soon learned
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-2
    packed = {n: p.clone() for n, p in run.model.named_parameters() if not p.requires_grad}
    first = float(run.model(**run.batch).loss.detach())
    for _ in range(20):
        run.step()
    assert float(run.model(**run.batch).loss.detach()) < 0.9 * first
    now = dict(run.model.named_parameters())
    assert all(torch.equal(p, now[name]) for name, p in packed.items())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_checkpoint_are_those_that_are_quantized(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    plain: Any = build_model(spec(RUNS["llama"]), TRAINING, "cpu")
    plain.save_pretrained(tmp_path)
    model = checked_model(str(tmp_path), None)
    run = Workload(model, LORA, settings(kind), given=Given(checkpoint=str(tmp_path)))
    with torch.no_grad():
        ids = {"input_ids": run.batch["input_ids"]}
        near, other = (m(**ids).logits for m in (run.model, plain))
    apart = float((near - other).norm() / other.norm())
    assert 0 < apart < 0.2
