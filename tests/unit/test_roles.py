"""Roles of modules over many architectures, each built small on the meta device."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from peftadvisor.data.models import find_model  # noqa: E402
from peftadvisor.errors import UnsupportedError  # noqa: E402
from peftadvisor.methods import roles  # noqa: E402
from peftadvisor.simulator.depth import at_depth, layers_for  # noqa: E402
from peftadvisor.simulator.step import Prepared, prepare  # noqa: E402
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec  # noqa: E402

# Model, q and v targets, ends of attention and feed-forward in the first layer.
CASES = [
    ("google-t5/t5-small", ["q", "v"], "layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo"),
    ("meta-llama/Llama-3.2-1B", ["q_proj", "v_proj"], "self_attn.o_proj", "mlp.down_proj"),
    ("bert-base-uncased", ["query", "value"], "attention.output.dense", "output.dense"),
    ("gpt2", ["c_attn"], "attn.c_proj", "mlp.c_proj"),
    ("facebook/opt-125m", ["v_proj", "q_proj"], "self_attn.out_proj", "fc2"),
    (
        "bigscience/bloom-560m",
        ["query_key_value"],
        "self_attention.dense",
        "mlp.dense_4h_to_h",
    ),
    ("EleutherAI/pythia-70m", ["query_key_value"], "attention.dense", "mlp.dense_4h_to_h"),
    ("tiiuae/falcon-7b", ["query_key_value"], "self_attention.dense", "mlp.dense_4h_to_h"),
    ("openai/whisper-tiny", ["v_proj", "q_proj"], "self_attn.out_proj", "fc2"),
    ("facebook/bart-base", ["v_proj", "q_proj"], "self_attn.out_proj", "fc2"),
    ("google/gemma-3-1b-it", ["q_proj", "v_proj"], "self_attn.o_proj", "mlp.down_proj"),
    ("mistralai/Mixtral-8x7B-v0.1", ["q_proj", "v_proj"], "self_attn.o_proj", "mlp"),
    ("Qwen/Qwen3-0.6B", ["q_proj", "v_proj"], "self_attn.o_proj", "mlp.down_proj"),
    ("Qwen/Qwen1.5-MoE-A2.7B", ["q_proj", "v_proj"], "self_attn.o_proj", "mlp"),
    ("microsoft/Phi-3.5-mini-instruct", ["qkv_proj"], "self_attn.o_proj", "mlp.down_proj"),
    ("answerdotai/ModernBERT-base", ["Wqkv"], "attn.Wo", "mlp.Wo"),
    ("mosaicml/mpt-7b", ["Wqkv"], "attn.out_proj", "ffn.down_proj"),
    (
        "microsoft/deberta-v3-base",
        ["query_proj", "value_proj"],
        "attention.output.dense",
        "output.dense",
    ),
    ("distilbert-base-uncased", ["q_lin", "v_lin"], "attention.out_lin", "ffn.lin2"),
    (
        "facebook/wav2vec2-base-960h",
        ["v_proj", "q_proj"],
        "attention.out_proj",
        "feed_forward.output_dense",
    ),
    ("deepseek-ai/DeepSeek-V3", ["q_a_proj", "kv_b_proj"], "self_attn.o_proj", "mlp.down_proj"),
    # The first layer is linear attention, with several projections as wide as its output.
    ("Qwen/Qwen3.5-9B", ["q_proj", "v_proj"], "linear_attn.out_proj", "mlp.down_proj"),
]
LLAVA = "llava-hf/llava-1.5-7b-hf"


@cache
def prepared(name: str, method: str = "full", quantization: Any = "none") -> Prepared:
    model: ModelSpec = find_model(name)
    config = at_depth(model.config, layers_for(model.config, 1))
    short = ModelSpec(
        id=model.id,
        config=config,
        config_key="short",
        parameters=None,
        checkpoint_parameters=None,
        provenance="cut for a test",
    )
    return prepare(short, MethodSpec(name=method), TrainingSpec(quantization=quantization))


def path_of(layer: Any, module: Any) -> str:
    return next(path for path, child in layer.named_modules() if child is module)


def trained(name: str, method: str) -> set[str]:
    parameters = prepared(name, method).model.named_parameters()
    return {path for path, p in parameters if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "query_value", "attention", "feed_forward"), CASES, ids=[c[0] for c in CASES]
)
def test_roles(name: str, query_value: list[str], attention: str, feed_forward: str) -> None:
    model = prepared(name).base
    layer = next(iter(roles.layers(model)))
    width = roles.hidden_size(model)
    assert roles.projection_names(model, "qv") == query_value
    assert path_of(layer, roles.attention_output(layer)) == attention
    assert path_of(layer, roles.feed_forward_output(layer, width)) == feed_forward
    assert roles.width_of(layer, 0) == width


def test_albert_has_one_layer_for_all() -> None:
    assert len(list(roles.layers(prepared("albert/albert-base-v2").base))) == 1


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ln-tuning", "houlsby", "pfeiffer"])
def test_only_the_language_part_of_a_multimodal_model_is_adapted(method: str) -> None:
    assert trained(LLAVA, method)
    assert all("language_model" in path for path in trained(LLAVA, method))


def test_bitfit_looks_for_biases_in_the_language_part() -> None:
    with pytest.raises(UnsupportedError, match="no bias in its linear layers"):
        prepared(LLAVA, "bitfit")


def test_both_towers_of_a_contrastive_model_are_adapted() -> None:
    adapters = trained("openai/clip-vit-base-patch32", "houlsby")
    assert {path.partition(".")[0] for path in adapters} == {"text_model", "vision_model"}


def test_norms_without_weights_and_of_single_heads() -> None:
    # ModernBERT's first layer has an Identity in the place of a norm; StableLM 2 12B has lists of
    # norms, whose names are numbers as those of layers are.
    assert not any(
        "layers.0.attn_norm" in p for p in trained("answerdotai/ModernBERT-base", "ln-tuning")
    )
    norms = trained("stabilityai/stablelm-2-12b", "ln-tuning")
    assert any(".q_layernorm.norms.31." in path for path in norms)


def test_what_peft_cannot_wrap_is_left_out() -> None:
    llama4 = trained("meta-llama/Llama-4-Scout-17B-16E-Instruct", "lora-all")
    assert not any(".router." in path for path in llama4)


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V2-Lite", "Qwen/Qwen3.5-9B"])
def test_prefix_tuning_needs_plain_keys_and_values(name: str) -> None:
    with pytest.raises(UnsupportedError, match="one shape in every layer"):
        prepared(name, "prefix-tuning")


def test_prefix_tuning_needs_keys_of_every_head() -> None:
    with pytest.raises(UnsupportedError, match="keys and values of one head"):
        prepared("tiiuae/falcon-7b", "prefix-tuning")


def test_prompt_tuning_needs_word_embeddings_that_peft_finds() -> None:
    with pytest.raises(UnsupportedError, match="does not find the word embeddings"):
        prepared("meta-llama/Llama-3.2-11B-Vision-Instruct", "prompt-tuning")


@pytest.mark.parametrize("method", ["bitfit", "houlsby", "pfeiffer", "lora", "prompt-tuning"])
def test_a_classification_head_is_trained(method: str) -> None:
    assert any("classifier" in path for path in trained("BAAI/bge-base-en-v1.5", method))


def test_a_quantized_base_cannot_be_trained_in_full() -> None:
    with pytest.raises(UnsupportedError, match="full does not work on a quantized base"):
        prepared("gpt2", "full", "nf4")


def test_a_classification_head_is_not_quantized() -> None:
    head = prepared("BAAI/bge-base-en-v1.5", "qlora", "nf4-dq").base.get_submodule("classifier")
    assert all(p.is_floating_point() for p in head.parameters())


def test_falcon_is_not_quantized_by_transformers() -> None:
    with pytest.raises(UnsupportedError, match="no layer that transformers would quantize"):
        prepared("tiiuae/falcon-7b", "qlora", "nf4-dq")
