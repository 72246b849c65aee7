"""Quantized bases: stored bits to the byte, what stays as it is, and a simulated QLoRA run."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from torch import nn  # noqa: E402

from peftadvisor.errors import UnsupportedError  # noqa: E402
from peftadvisor.simulator.attention import Device  # noqa: E402
from peftadvisor.simulator.quantized import quantized_layer  # noqa: E402
from peftadvisor.simulator.quantized_layers import QuantizedLinear, dequantize  # noqa: E402
from peftadvisor.simulator.step import Prepared, prepare, trace_run  # noqa: E402
from peftadvisor.simulator.trace import Event, Owner, Phase, Segment, Trace  # noqa: E402
from peftadvisor.specs import MethodSpec, TrainingSpec  # noqa: E402
from tests.parity.tiny import LLAMA, T5_SMALL, spec  # noqa: E402

KINDS = ("nf4", "nf4-dq", "int8")
FOUR_BIT = KINDS[:2]
# Of each layer, whatever its size: a code of 16 fp32; with double quantization an offset and a
# second code of 256.
CONSTANTS = {"nf4": 4 * 16, "nf4-dq": 4 * 16 + 4 + 4 * 256, "int8": 0}
LAYERS, D, F, KV, VOCABULARY = 4, 256, 688, 128, 3200
SHAPES = [(D, D), (KV, D), (KV, D), (D, D), (F, D), (F, D), (D, F)]  # of one layer: rows, columns
LINEARS = LAYERS * len(SHAPES)
GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": 128,
}
BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
}


def up(n: int, d: int) -> int:
    return -(-n // d)


def stored_bytes(kind: str, rows: int, columns: int) -> int:
    n = rows * columns
    if kind == "int8":
        return n + 4 * rows
    blocks = up(n, 64)
    maxima = 4 * blocks if kind == "nf4" else blocks + 4 * up(blocks, 256)
    return up(n, 2) + maxima + CONSTANTS[kind]


@cache
def run(kind: str, batch: int = 2, method: str = "qlora", dtype: str = "bf16") -> Prepared:
    return prepare(spec(LLAMA), MethodSpec(name=method), settings(kind, batch, dtype))


def settings(kind: str, batch: int = 2, dtype: str = "bf16", **more: Any) -> TrainingSpec:
    return TrainingSpec(
        micro_batch_size=batch,
        seq_len=64,
        dtype=dtype,  # type: ignore[arg-type]
        quantization=kind,  # type: ignore[arg-type]
        **more,
    )


@cache
def trace(kind: str, batch: int = 2) -> Trace:
    return trace_run(run(kind), settings(kind, batch), Device((8, 0)))


def quantized(model: nn.Module) -> dict[str, QuantizedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantizedLinear)}


def layer_bytes(layer: QuantizedLinear) -> int:
    return sum(t.numel() * t.element_size() for t in [layer.weight, *layer.buffers()])


# -- What one layer stores -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("nf4", 4 + 32 / 64),  # 4.5
        ("nf4-dq", 4 + 8 / 64 + 32 / (64 * 256)),  # 4.127
        ("int8", 8 + 32 / 1024),  # one fp32 per row, here of 1024
    ],
)
def test_bits_per_parameter(kind: Any, bits: float) -> None:
    source = nn.Linear(1024, 2048, bias=False, device="meta", dtype=torch.bfloat16)
    layer = quantized_layer(source, kind, torch.bfloat16)
    assert (layer_bytes(layer) - CONSTANTS[kind]) * 8 == bits * 1024 * 2048
    assert layer.weight.logical_numel == 1024 * 2048


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (2, 50), (24, 1001), (3, 5)])
def test_partial_blocks_are_stored_as_whole_ones(kind: Any, rows: int, columns: int) -> None:
    source = nn.Linear(columns, rows, bias=False, device="meta")
    assert layer_bytes(quantized_layer(source, kind, torch.bfloat16)) == stored_bytes(
        kind, rows, columns
    )


def test_a_bias_stays_as_it_is() -> None:
    source = nn.Linear(64, 32, device="meta", dtype=torch.bfloat16)
    layer = quantized_layer(source, "nf4", torch.bfloat16)
    assert layer.bias is source.bias
    assert layer(torch.empty(3, 64, device="meta")).shape == (3, 32)


@pytest.mark.parametrize("outside", [torch.float32, torch.bfloat16])
def test_computes_in_the_compute_dtype_and_returns_the_inputs(outside: Any) -> None:
    layer = quantized_layer(nn.Linear(64, 32, device="meta"), "nf4", torch.float16)
    assert layer(torch.empty(3, 64, device="meta", dtype=outside)).dtype == outside
    assert layer.dequantized(torch.float16).shape == (32, 64)
    assert layer.dequantized(torch.float16).dtype == torch.float16


def test_exists_as_shapes_only() -> None:
    packed, scale = torch.zeros(8, 1, dtype=torch.uint8), torch.zeros(1)
    with pytest.raises(UnsupportedError, match="cannot run on a device"):
        dequantize(packed, scale, 4, 4, torch.bfloat16)


# -- What of a model is quantized ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_quantized_and_head_embeddings_and_norms_are_not(kind: str) -> None:
    base: Any = run(kind).base
    layers = quantized(base)
    assert len(layers) == LINEARS
    for name, layer in layers.items():
        shape = (layer.out_features, layer.in_features)
        assert layer_bytes(layer) == stored_bytes(kind, *shape), name
    assert sorted((m.out_features, m.in_features) for m in layers.values()) == sorted(
        SHAPES * LAYERS
    )
    assert type(base.lm_head) is nn.Linear
    assert base.lm_head.weight.dtype == torch.float32
    assert base.model.embed_tokens.weight.dtype == torch.float32
    norms = [m for m in base.modules() if "RMSNorm" in type(m).__name__]
    assert len(norms) == 2 * LAYERS + 1
    assert {m.weight.dtype for m in norms} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_base_is_frozen_and_nothing_of_it_is_16_bit(kind: str, dtype: str) -> None:
    prepared = run(kind, dtype=dtype)
    base = [p for p in prepared.model.parameters() if id(p) in prepared.base_parameters]
    adapters = [p for p in prepared.model.parameters() if id(p) not in prepared.base_parameters]
    assert not any(p.requires_grad for p in base)
    assert {p.dtype for p in base} == {torch.float32, torch.int8 if kind == "int8" else torch.uint8}
    assert all(p.requires_grad and p.dtype == torch.float32 for p in adapters)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_wraps_quantized_layers(kind: str) -> None:
    model = run(kind).model
    wrappers = {n: m for n, m in model.named_modules() if type(m).__name__ == "QuantizedLora"}
    assert len(wrappers) == LINEARS
    assert all(isinstance(m.get_base_layer(), QuantizedLinear) for m in wrappers.values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == LAYERS * 8 * sum(rows + columns for rows, columns in SHAPES)


def test_query_and_value_only_where_lora_is_asked_for() -> None:
    model = run("nf4", method="lora").model
    wrapped = [n for n, m in model.named_modules() if type(m).__name__ == "QuantizedLora"]
    assert {n.rpartition(".")[2] for n in wrapped} == {"q_proj", "v_proj"}
    assert len(wrapped) == 2 * LAYERS
    assert len(quantized(model)) == LINEARS


def test_parameters_are_counted_as_if_not_quantized() -> None:
    plain = prepare(spec(LLAMA), MethodSpec(name="lora-all"), TrainingSpec())
    counts = trace("nf4").parameters_by_tag.values()
    assert sum(c[0] for c in counts) == sum(p.numel() for p in plain.model.parameters())


def test_t5_keeps_wo_and_the_tied_head() -> None:
    # transformers keeps T5's wo in fp32 whatever the base; the head is the embedding.
    base: Any = prepare(spec(T5_SMALL), MethodSpec(name="qlora"), settings("nf4")).base
    names = {n.removesuffix(".base_layer").rpartition(".")[2] for n in quantized(base)}
    assert names == {"q", "k", "v", "o", "wi"}
    assert base.lm_head.weight is base.shared.weight
    assert base.shared.weight.dtype == torch.float32
    assert base.encoder.block[0].layer[1].DenseReluDense.wo.weight.dtype == torch.float32


def test_masked_lm_head_is_kept() -> None:
    base: Any = prepare(spec(BERT), MethodSpec(name="qlora"), settings("nf4")).base
    assert len(quantized(base)) >= 2 * 6
    assert type(base.cls.predictions.decoder) is nn.Linear
    assert base.cls.predictions.decoder.weight is base.bert.embeddings.word_embeddings.weight


# -- A run ---------------------------------------------------------------------------------------


def held(trace: Trace, owner: Owner) -> list[int]:
    """Bytes of one owner held after each event of a run."""
    now, levels = 0, []
    for kind, ref in zip(trace.event_kind, trace.event_ref, strict=True):
        if kind != Event.KERNEL and trace.storage_owner[ref] == owner:
            now += trace.storage_bytes[ref] * (1 if kind == Event.ALLOC else -1)
        levels.append(now)
    return levels


def expected_weight_bytes(kind: str) -> int:
    packed = LAYERS * sum(stored_bytes(kind, *shape) for shape in SHAPES)
    fp32 = 4 * (2 * VOCABULARY * D + (2 * LAYERS + 1) * D)
    rope = 2 * 4 * (D // 4 // 2)  # inv_freq and its original, 32 fp32 each
    return packed + fp32 + rope


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_held_packed_for_the_whole_run(kind: str, batch: int) -> None:
    levels = held(trace(kind, batch), Owner.WEIGHT)
    assert max(levels) == levels[-1] == expected_weight_bytes(kind)


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("kind", FOUR_BIT)
def test_no_16_bit_copy_of_a_weight_outlives_its_product(kind: str, batch: int) -> None:
    """Each result of a dequantization is freed before the next one is made."""
    t = trace(kind, batch)
    events = list(zip(t.event_kind, t.event_ref, strict=True))
    freed = {ref: i for i, (kind_, ref) in enumerate(events) if kind_ == Event.FREE}
    runs = [
        i
        for i, (kind_, ref) in enumerate(events)
        if kind_ == Event.KERNEL and "dequantize" in t.kernel_name[ref]
    ]
    sizes = {2 * rows * columns for rows, columns in SHAPES}
    copies = []
    for i in runs:
        born, copy = events[i + 1]
        assert born == Event.ALLOC
        copies.append(copy)
        assert t.storage_bytes[copy] in sizes
    for copy, following in zip(copies, [*runs[1:], len(events)], strict=True):
        assert freed[copy] < following


@pytest.mark.parametrize("kind", FOUR_BIT)
def test_weights_are_dequantized_in_forward_and_again_in_backward(kind: str) -> None:
    t = trace(kind)
    found: Counter[tuple[int, int]] = Counter()
    for i, (event, ref) in enumerate(zip(t.event_kind, t.event_ref, strict=True)):
        if event == Event.KERNEL and "dequantize" in t.kernel_name[ref]:
            found[t.event_segment[i], t.event_phase[i]] += 1
    # Backward stops before q, k and v of the first layer: their input asks for no gradient.
    steps = (Segment.STEP_1, Segment.STEP_2, Segment.ACCUMULATE)
    assert found == {
        (segment, phase): LINEARS - 3 * (phase == Phase.BACKWARD)
        for segment in steps
        for phase in (Phase.FORWARD, Phase.BACKWARD)
    }


def test_checkpointing_dequantizes_a_third_time() -> None:
    training = settings("nf4", gradient_checkpointing="non-reentrant")
    prepared = prepare(spec(LLAMA), MethodSpec(name="qlora"), training)
    t = trace_run(prepared, training, Device((8, 0)))
    phases = Counter(
        t.event_phase[i]
        for i, (event, ref) in enumerate(zip(t.event_kind, t.event_ref, strict=True))
        if event == Event.KERNEL
        and "dequantize" in t.kernel_name[ref]
        and t.event_segment[i] == Segment.STEP_2
    )
    assert phases[Phase.FORWARD] == LINEARS
    # Recomputation may stop before the last product of a layer: all that is saved is there again.
    again = phases[Phase.BACKWARD] + phases[Phase.RECOMPUTE]
    assert 2 * LINEARS - LAYERS <= again <= 2 * LINEARS


def test_a_larger_batch_changes_activations_and_no_weight() -> None:
    small, large = (max(held(trace("nf4-dq", b), Owner.ACTIVATION)) for b in (2, 5))
    assert large > 2 * small
    assert (
        held(trace("nf4-dq", 2), Owner.ADAPTER)[-1] == held(trace("nf4-dq", 5), Owner.ADAPTER)[-1]
    )


def test_order_of_sizes() -> None:
    full = prepare(spec(LLAMA), MethodSpec(name="lora-all"), TrainingSpec())
    plain = sum(
        p.numel() * p.element_size()
        for name, p in full.base.named_parameters()
        if "base_layer" in name
    )
    packed = {k: sum(layer_bytes(m) for m in quantized(run(k).base).values()) for k in KINDS}
    assert packed["nf4-dq"] < packed["nf4"] < packed["int8"] < plain


def test_int8_multiplies_packed_weights_in_forward() -> None:
    t = trace("int8")
    phases = Counter(
        t.event_phase[i]
        for i, (event, ref) in enumerate(zip(t.event_kind, t.event_ref, strict=True))
        if event == Event.KERNEL
        and "int8_product" in t.kernel_name[ref]
        and t.event_segment[i] == Segment.STEP_2
    )
    assert phases == {Phase.FORWARD: LINEARS}


def test_gpt2s_convolutions_are_linear_layers() -> None:
    base: Any = prepare(spec(GPT2), MethodSpec(name="qlora"), settings("nf4")).base
    layers = quantized(base)
    assert len(layers) == 2 * 4  # c_attn, c_proj, c_fc, c_proj; the head is tied
    d = 64
    shapes = sorted((m.out_features, m.in_features) for m in layers.values())
    assert shapes == sorted([(3 * d, d), (d, d), (4 * d, d), (d, 4 * d)] * 2)


def test_nothing_to_quantize() -> None:
    from peftadvisor.simulator.quantized import quantize_base

    base: Any = prepare(spec(LLAMA), MethodSpec(name="full"), TrainingSpec()).base
    del base.model.layers[:]
    with pytest.raises(UnsupportedError, match="no layer that transformers would quantize"):
        quantize_base(base, settings("nf4"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("amp", [False, True])
def test_flash_attention_casts_to_a_floating_dtype(kind: str, amp: bool) -> None:
    """Rotated queries are fp32, since the embeddings are; packed weights are whole numbers."""
    training = settings(kind, attention="flash_attention_2", amp=amp)
    prepared = prepare(spec(LLAMA), MethodSpec(name="qlora"), training)
    trace = trace_run(prepared, training, Device((8, 0)))
    flash = {name for name in trace.kernel_name if "flash" in name}
    assert flash
    assert all(name.endswith(".bfloat16") for name in flash)


@pytest.mark.parametrize("method", ["adalora", "gralora"])
def test_methods_that_add_in_place_take_an_int8_base(method: str) -> None:
    assert run("int8", method=method).model is not None
    trace_run(run("int8", method=method), settings("int8"), Device((8, 0)))


def test_stored_bytes_of_gptq() -> None:
    """256 × 1024: half a byte each, in 8 groups a row fp16 scales and 4-bit zeros; an index."""
    layer = quantized_layer(nn.Linear(1024, 256, bias=False, device="meta"), "gptq", torch.float16)
    held = sum(t.numel() * t.element_size() for t in [layer.weight, *layer.buffers()])
    assert held == 256 * 1024 // 2 + 256 * 8 * 2 + 256 * 8 // 2 + 1024 * 4


def test_gptq_is_unpacked_for_every_product_and_trains_lora() -> None:
    trace = trace_run(run("gptq"), settings("gptq"), Device((8, 0)))
    unpacked = Counter(
        Phase(phase)
        for kind, ref, phase in zip(
            trace.event_kind, trace.event_ref, trace.event_phase, strict=True
        )
        if kind == Event.KERNEL and "dequantize" in trace.kernel_name[ref]
    )
    assert unpacked[Phase.FORWARD] == 3 * LINEARS  # three micro-batches
    assert unpacked[Phase.BACKWARD] > 2 * LINEARS
