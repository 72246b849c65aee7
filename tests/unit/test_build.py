"""Models built from configs on the meta device: sizes, depth, batches, refusals.

Parameter counts are those of the bundled catalog's built models: made by an independent script
with transformers 5.23 from the same configs, and checked there against published counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from peftadvisor.data.models import find_model  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.simulator import batches, build, depth  # noqa: E402
from peftadvisor.simulator.attention import Device  # noqa: E402
from peftadvisor.simulator.cuda_kernels import WORKSPACES, device_kernels  # noqa: E402
from peftadvisor.simulator.meta_kernels import missing_kernels  # noqa: E402
from peftadvisor.simulator.trace import Phase, Segment  # noqa: E402
from peftadvisor.simulator.tracer import Tracer  # noqa: E402
from peftadvisor.specs import ModelSpec, TrainingSpec  # noqa: E402

SMALL = TrainingSpec(micro_batch_size=2, seq_len=64, target_len=32)

COUNTS = {
    "google-t5/t5-11b": 11307321344,
    "google/mt5-small": 172119424,
    "facebook/bart-base": 139420416,
    "google/pegasus-large": 570797056,
    "google-bert/bert-base-uncased": 109514298,
    "FacebookAI/roberta-base": 124697433,
    "microsoft/deberta-v3-base": 184551780,
    "answerdotai/ModernBERT-base": 149655232,
    "openai-community/gpt2": 124439808,
    "EleutherAI/gpt-neo-1.3B": 1315575808,
    "EleutherAI/pythia-1b": 1011781632,
    "facebook/opt-1.3b": 1315758080,
    "bigscience/bloom-560m": 559214592,
    "tiiuae/falcon-7b": 6921720704,
    "microsoft/phi-2": 2779683840,
    "meta-llama/Llama-3.1-8B": 8030261248,
    "Qwen/Qwen2.5-7B": 7615616512,
    "Qwen/Qwen3.5-9B": 9409813744,
    "mistralai/Mixtral-8x7B-v0.1": 46702792704,
    "deepseek-ai/DeepSeek-V3": 671026404352,
    "openai/gpt-oss-20b": 20914757184,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 108641793536,
    "google/gemma-3-4b-pt": 4300079472,
    "google/gemma-4-E2B-it": 5104297504,
    "THUDM/chatglm3-6b": 6243584000,  # remote code, counted through a native config
    "openai/clip-vit-base-patch32": 151277313,
    "google/vit-base-patch16-224": 86567656,
    "openai/whisper-small": 241734912,
    "facebook/wav2vec2-base-960h": 94396320,
    # Headless: the catalog's 109482240 and a classifier of 2 x 768 + 2.
    "BAAI/bge-base-en-v1.5": 109482240 + 1538,
}

# Layers, prefix and period of each depth field.
PATTERNS = {
    "meta-llama/Llama-3.1-8B": {"num_hidden_layers": (32, 0, 1)},
    "Qwen/Qwen2.5-7B": {"num_hidden_layers": (28, 0, 1)},
    "openai-community/gpt2": {"n_layer": (12, 0, 1)},
    # The first layer of each T5 stack holds the relative position bias.
    "google-t5/t5-large": {"num_layers": (24, 1, 1), "num_decoder_layers": (24, 1, 1)},
    "facebook/bart-base": {"encoder_layers": (6, 0, 1), "decoder_layers": (6, 0, 1)},
    "openai/whisper-large-v3-turbo": {"encoder_layers": (32, 0, 1), "decoder_layers": (4, 0, 1)},
    "google/gemma-2-2b": {"num_hidden_layers": (26, 0, 2)},
    # Five local and one global layer; 26 = 2 + 4 x 6 and 34 = 4 + 5 x 6.
    "google/gemma-3-1b-pt": {"num_hidden_layers": (26, 2, 6)},
    "google/gemma-3-4b-pt": {"text_config.num_hidden_layers": (34, 4, 6)},
    # The last 20 of 35 layers share the keys and values of earlier ones.
    "google/gemma-4-E2B-it": {"text_config.num_hidden_layers": (35, 15, 5)},
    "deepseek-ai/DeepSeek-V3": {"num_hidden_layers": (61, 3, 1)},
    "deepseek-ai/DeepSeek-V2-Lite": {"num_hidden_layers": (27, 1, 1)},
    # Every third layer global; the first lacks a norm; 22 = 1 + 7 x 3.
    "answerdotai/ModernBERT-base": {"num_hidden_layers": (22, 1, 3)},
    "Qwen/Qwen3.5-9B": {"text_config.num_hidden_layers": (32, 0, 4)},
    "EleutherAI/gpt-neo-1.3B": {"num_layers": (24, 0, 2)},
    "allenai/Olmo-3-1025-7B": {"num_hidden_layers": (32, 0, 4)},
    "HuggingFaceTB/SmolLM3-3B": {"num_hidden_layers": (36, 0, 4)},
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": {"text_config.num_hidden_layers": (48, 0, 4)},
    "meta-llama/Llama-3.2-11B-Vision-Instruct": {"text_config.num_hidden_layers": (40, 0, 5)},
    "openai/clip-vit-base-patch32": {
        "text_config.num_hidden_layers": (12, 0, 1),
        "vision_config.num_hidden_layers": (12, 0, 1),
    },
    "albert/albert-base-v2": {},  # one shared layer, run twelve times
}


def spec_of(config: dict[str, Any], **changes: Any) -> ModelSpec:
    return ModelSpec(
        id="test/model",
        config={**config, **changes},
        config_key="",
        parameters=None,
        checkpoint_parameters=None,
        provenance="test",
    )


def short(name: str, units: int = 2) -> ModelSpec:
    model = find_model(name)
    layers = depth.layers_for(model.config, units)
    return dataclasses.replace(model, config=depth.at_depth(model.config, layers))


def parameters_of(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def traced() -> Iterator[Any]:
    """Trace forward and backward of one micro-batch; returns model and tracer."""

    def run(spec: ModelSpec, training: TrainingSpec) -> tuple[Any, Tracer]:
        model = build.build_model(spec, training)
        tracer = Tracer(all_real=not training.padded, workspaces=WORKSPACES, vocabulary=frozenset())
        with device_kernels(Device((8, 0))), missing_kernels(), tracer:
            tracer.segment, tracer.phase = Segment.STEP_1, Phase.FORWARD
            loss = model(**build.make_batch(model, training)).loss
            torch.autograd.backward([loss])
            tracer.close()
        return model, tracer

    return run


def kernels(tracer: Tracer) -> list[str]:
    return [name.partition(".")[0] for name in tracer.trace.kernel_name]


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_full_model_has_the_catalog_count(name: str, count: int) -> None:
    model = build.build_model(find_model(name), SMALL)
    assert parameters_of(model) == count
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"meta"}


@pytest.mark.parametrize(("name", "expected"), PATTERNS.items())
def test_depth_and_period(name: str, expected: dict[str, tuple[int, int, int]]) -> None:
    config = find_model(name).config
    fields = build.depth_fields(config)
    assert {f: (n, *build.period(config, f)) for f, n in fields.items()} == expected


@pytest.mark.parametrize("name", PATTERNS)
def test_short_model_keeps_the_pattern(name: str) -> None:
    config = find_model(name).config
    cut = short(name).config
    for field in build.depth_fields(config):
        prefix, width = build.period(config, field)
        assert build.depth_fields(cut)[field] == prefix + 2 * width
        assert build.period(cut, field) == (prefix, width)


@pytest.mark.parametrize("name", [n for n in PATTERNS if PATTERNS[n]])
def test_every_unit_adds_the_same_parameters(name: str) -> None:
    one, two, three = (
        parameters_of(build.build_model(short(name, units), SMALL)) for units in (1, 2, 3)
    )
    assert three - two == two - one > 0


@pytest.mark.parametrize("name", [n for n in PATTERNS if PATTERNS[n]])
def test_stacks_are_the_depth_fields(name: str) -> None:
    model = build.build_model(short(name), SMALL)
    stacks = build.stacks_of(model)
    assert {s.field: (s.prefix, s.period) for s in stacks} == {
        field: pattern[1:] for field, pattern in PATTERNS[name].items()
    }
    for stack in stacks:
        assert len(model.get_submodule(stack.path)) == stack.layers
        assert stack.layers == stack.prefix + 2 * stack.period


def test_stack_paths_skip_towers_and_experts() -> None:
    def paths(name: str) -> list[str]:
        return [s.path for s in build.stacks_of(build.build_model(short(name), SMALL))]

    assert paths("google-t5/t5-small") == ["encoder.block", "decoder.block"]
    assert paths("facebook/wav2vec2-base-960h") == ["wav2vec2.encoder.layers"]
    assert paths("google/gemma-3-4b-pt") == ["model.language_model.layers"]
    assert paths("mistralai/Mixtral-8x7B-v0.1") == ["model.layers"]
    assert paths("albert/albert-base-v2") == []


def test_deeper_than_the_model_continues_the_period() -> None:
    config = find_model("google/gemma-3-1b-pt").config
    deep = build.at_depth(config, {"num_hidden_layers": 38})
    types = build.at_depth(config, {"num_hidden_layers": 26})["layer_types"]
    assert deep["num_hidden_layers"] == 38
    assert deep["layer_types"][:26] == types
    assert deep["layer_types"][26:] == types[2:14]


def test_depth_rewrites_index_lists_and_counts() -> None:
    vision = find_model("meta-llama/Llama-3.2-11B-Vision-Instruct").config
    cut = build.at_depth(vision, {"text_config.num_hidden_layers": 10})
    assert cut["text_config"]["cross_attention_layers"] == [3, 8]
    shared = find_model("google/gemma-4-E2B-it").config
    cut = build.at_depth(shared, {"text_config.num_hidden_layers": 25})
    assert cut["text_config"]["num_kv_shared_layers"] == 10
    neo = find_model("EleutherAI/gpt-neo-1.3B").config
    cut = build.at_depth(neo, {"num_layers": 4})
    assert cut["attention_types"] == [[["global", "local", "global", "local"], 1]]


def test_at_depth_leaves_the_config_alone() -> None:
    config = find_model("Qwen/Qwen3.5-9B").config
    before = repr(config)
    build.at_depth(config, {"text_config.num_hidden_layers": 4})
    assert repr(config) == before


def test_irregular_layers_stay_whole() -> None:
    config = find_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16").config
    # The mixture of mamba, attention and expert layers repeats only in its last eight.
    assert depth.layers_for(config, 2) == {"num_hidden_layers": 52}


BATCHES = {
    "meta-llama/Llama-3.1-8B": {"input_ids": (2, 64), "attention_mask": (2, 64), "labels": (2, 64)},
    "google-t5/t5-small": {"input_ids": (2, 64), "attention_mask": (2, 64), "labels": (2, 32)},
    "google-bert/bert-base-uncased": {
        "input_ids": (2, 64),
        "attention_mask": (2, 64),
        "labels": (2, 64),
    },
    "BAAI/bge-base-en-v1.5": {"input_ids": (2, 64), "attention_mask": (2, 64), "labels": (2,)},
    "google/electra-small-discriminator": {
        "input_ids": (2, 64),
        "attention_mask": (2, 64),
        "labels": (2,),
    },
    "google/vit-base-patch16-224": {"pixel_values": (2, 3, 224, 224), "labels": (2,)},
    "openai/whisper-small": {"input_features": (2, 80, 3000), "labels": (2, 32)},
    # Convolutions of strides 5 2 2 2 2 2 2 and kernels 10 3 3 3 3 2 2: 320 x 63 + 400 samples.
    "facebook/wav2vec2-base-960h": {"input_values": (2, 20560), "labels": (2, 32)},
    "openai/clip-vit-base-patch32": {
        "input_ids": (2, 64),
        "attention_mask": (2, 64),
        "pixel_values": (2, 3, 224, 224),
    },
    "google/gemma-3-4b-pt": {"input_ids": (2, 64), "attention_mask": (2, 64), "labels": (2, 64)},
}


@pytest.mark.parametrize(("name", "shapes"), BATCHES.items())
def test_batch(name: str, shapes: dict[str, tuple[int, ...]], traced: Any) -> None:
    model, tracer = traced(short(name), SMALL)
    batch = build.make_batch(model, SMALL)
    assert {key: tuple(tensor.shape) for key, tensor in batch.items()} == shapes
    assert len(tracer.trace.kernel_name) > 50
    assert all(p.grad is not None for s in build.stacks_of(model) for p in last_layer(model, s))


def last_layer(model: Any, stack: build.Stack) -> list[Any]:
    return list(model.get_submodule(stack.path)[-1].parameters())


def test_clip_text_is_cut_to_its_positions() -> None:
    model = build.build_model(find_model("openai/clip-vit-base-patch32"), SMALL)
    batch = build.make_batch(model, dataclasses.replace(SMALL, seq_len=512))
    assert tuple(batch["input_ids"].shape) == (2, 77)


def test_uses_seq_len() -> None:
    def uses(name: str) -> bool:
        return build.uses_seq_len(depth.completed(find_model(name).config))

    assert uses("meta-llama/Llama-3.1-8B")
    assert uses("facebook/wav2vec2-base-960h")
    assert not uses("openai/whisper-small")
    assert not uses("google/vit-base-patch16-224")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_experts_run_as_grouped_matmul(dtype: Any, traced: Any) -> None:
    training = dataclasses.replace(SMALL, dtype=dtype)
    _, tracer = traced(short("mistralai/Mixtral-8x7B-v0.1"), training)
    # Two projections per layer, forward and twice as many backward, in two layers.
    assert kernels(tracer).count("_grouped_mm") == 2 * 2 * 3


def test_grouped_matmul_shapes_are_those_of_torch() -> None:
    a = torch.empty(48, 16, dtype=torch.bfloat16, device="meta")
    b = torch.empty(4, 16, 24, dtype=torch.bfloat16, device="meta")
    offsets = torch.empty(4, dtype=torch.int32, device="meta")
    calls = [(a, b), (a.t(), a)]
    theirs = [torch.ops.aten._grouped_mm(x, y, offsets) for x, y in calls]
    with missing_kernels():
        ours = [torch.ops.aten._grouped_mm(x, y, offsets) for x, y in calls]
    assert [(t.shape, t.stride()) for t in ours] == [(t.shape, t.stride()) for t in theirs]


@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_attention_implementations(attention: Any, traced: Any) -> None:
    training = dataclasses.replace(SMALL, attention=attention)
    model, tracer = traced(short("meta-llama/Llama-3.1-8B"), training)
    flash = kernels(tracer).count("_scaled_dot_product_flash_attention")
    assert flash == (2 if attention == "flash_attention_2" else 0)


def test_flash_attention_takes_shared_keys_as_they_are() -> None:
    from peftadvisor.simulator.flash_attention import _attend

    query = torch.empty(2, 32, 64, 100, dtype=torch.bfloat16, device="meta")
    key = torch.empty(2, 8, 64, 100, dtype=torch.bfloat16, device="meta")
    tracer = Tracer(all_real=True, workspaces={}, vocabulary=frozenset())
    with tracer:
        out, weights = _attend(torch.nn.Module(), query, key, key, None)
        tracer.close()
    assert tuple(out.shape) == (2, 64, 32, 100)
    assert weights is None
    # Head dimension 100 is padded to 104 as flash-attn does; the 8 key heads stay 8.
    sizes = [2 * heads * 64 * 104 * 2 for heads in (32, 8, 8)]
    assert list(tracer.trace.storage_bytes)[:3] == sizes


def test_parameters_kept_in_fp32() -> None:
    half = dataclasses.replace(SMALL, dtype="fp16")
    t5 = build.build_model(find_model("google-t5/t5-small"), half)
    kinds = {name.split(".")[-2]: p.dtype for name, p in t5.named_parameters()}
    assert kinds["wo"] is torch.float32
    assert kinds["q"] is torch.float16
    brain = build.build_model(find_model("google-t5/t5-small"), SMALL)
    assert {p.dtype for p in brain.parameters()} == {torch.bfloat16}


def test_headless_classes_get_a_head() -> None:
    def class_of(architecture: str | None, name: str) -> str:
        config = dict(find_model(name).config)
        config["architectures"] = [architecture] if architecture else None
        return type(build.build_model(spec_of(config), SMALL)).__name__

    assert class_of("BertModel", "google-bert/bert-base-uncased") == "BertForSequenceClassification"
    assert class_of(None, "google-bert/bert-base-uncased") == "BertForMaskedLM"
    assert class_of("LlamaModel", "meta-llama/Llama-3.2-1B") == "LlamaForCausalLM"
    assert class_of("T5Model", "google-t5/t5-small") == "T5ForConditionalGeneration"
    assert class_of("ViTModel", "google/vit-base-patch16-224") == "ViTForImageClassification"
    assert class_of("Wav2Vec2ForPreTraining", "facebook/wav2vec2-base-960h") == "Wav2Vec2ForCTC"
    assert class_of(None, "microsoft/deberta-v3-small") == "DebertaV2ForMaskedLM"


REFUSALS = {
    "no type": ({"hidden_size": 8}, {}, "names no 'model_type'"),
    "unknown type": ({"model_type": "lama"}, {}, "no model type 'lama'"),
    "no head": ({"model_type": "encodec"}, {}, "no trainable head"),
    "inconsistent": (
        {"model_type": "llama", "hidden_size": 10, "num_attention_heads": 3},
        {},
        "not valid",
    ),
    "flash unsupported": ({"model_type": "t5"}, {"attention": "flash_attention_2"}, "use sdpa"),
    "flash by itself": ({"model_type": "gptj"}, {"attention": "flash_attention_2"}, "use sdpa"),
    "flash in fp32": (
        {"model_type": "llama"},
        {"attention": "flash_attention_2", "dtype": "fp32"},
        "bf16 or fp16",
    ),
    "no checkpointing": (
        {"model_type": "albert"},
        {"gradient_checkpointing": "non-reentrant"},
        "gradient checkpointing",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_line(case: str) -> None:
    config, settings, message = REFUSALS[case]
    with pytest.raises(UsageError, match=message) as caught:
        build.build_model(spec_of(config), dataclasses.replace(SMALL, **settings))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("test/model: ")


def test_flash_attention_refuses_large_heads(traced: Any) -> None:
    training = dataclasses.replace(SMALL, attention="flash_attention_2")
    with pytest.raises(UsageError, match="head dimension 256, this model has 512"):
        traced(short("google/gemma-4-E2B-it"), training)


def test_depth_refuses_unknown_fields_and_too_few_layers() -> None:
    config = find_model("deepseek-ai/DeepSeek-V3").config
    with pytest.raises(UsageError, match="no depth field 'n_layer'; it has: num_hidden_layers"):
        build.period(config, "n_layer")
    with pytest.raises(UsageError, match="at least 3"):
        build.at_depth(config, {"num_hidden_layers": 2})


def test_task_of_a_model_that_has_none() -> None:
    with pytest.raises(UsageError, match="no training task"):
        batches.task_of(build.build_model(find_model("openai-community/gpt2"), SMALL).transformer)
