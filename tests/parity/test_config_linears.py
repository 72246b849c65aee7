"""Linear layers told from a config against those of the real modules, one model per family."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from peftadvisor.advisor.amounts import parameters_per_rank
from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method
from peftadvisor.methods.linears import config_linears, has_experts, hidden_width
from peftadvisor.methods.sites import Layout, layout_of
from peftadvisor.simulator.build import build_model
from peftadvisor.simulator.depth import at_depth, depth_fields
from peftadvisor.specs import ModelSpec, TrainingSpec

LAYERS = 3
MODELS = (
    "meta-llama/Llama-3.2-3B",
    "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-7B",
    "Qwen/Qwen3-0.6B",
    "google/gemma-2-2b",
    "microsoft/Phi-3-mini-4k-instruct",
    "EleutherAI/pythia-1.4b",
    "bigscience/bloom-7b1",
    "openai-community/gpt2",
    "bigcode/starcoder2-3b",
    "microsoft/phi-2",
    "facebook/opt-1.3b",
    "google-t5/t5-11b",
    "google/flan-t5-large",
)


@cache
def shallow(name: str) -> tuple[ModelSpec, Layout]:
    model = find_model(name)
    depth = {field: min(count, LAYERS) for field, count in depth_fields(model.config).items()}
    spec = replace(model, config=at_depth(model.config, depth))
    return spec, layout_of(build_model(spec, TrainingSpec()))


def sizes(linears: Any) -> list[Any]:
    return sorted(
        (x.layer, x.path.rpartition(".")[2], x.role, x.inputs, x.outputs, x.cross) for x in linears
    )


@pytest.mark.parametrize("name", MODELS)
def test_config_tells_what_the_modules_hold(name: str) -> None:
    spec, layout = shallow(name)
    assert sizes(config_linears(spec.config)) == sizes(layout.linears)
    assert hidden_width(spec.config) == layout.hidden


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("targets", ["all-linear", None])
def test_parameters_per_rank_are_those_of_the_formula(name: str, targets: Any) -> None:
    spec, layout = shallow(name)
    for method in map(find_method, ("lora", "lora-fa", "lora-mlp", "dora")):
        settings = {**method.defaults, "target_modules": targets}
        more, fewer = (method.trainable(layout, {**settings, "rank": rank}) for rank in (9, 8))
        assert parameters_per_rank(method, spec, targets) == more - fewer


def test_models_that_a_config_does_not_tell_of() -> None:
    # Two more linear layers, experts, an encoder with a pooler.
    for name in (
        "facebook/opt-350m",
        "mistralai/Mixtral-8x7B-v0.1",
        "google-bert/bert-base-uncased",
    ):
        assert config_linears(find_model(name).config) is None
    assert has_experts(find_model("mistralai/Mixtral-8x7B-v0.1").config)
    assert has_experts(find_model("deepseek-ai/DeepSeek-V3").config)
    assert not has_experts(find_model("meta-llama/Llama-3.2-3B").config)
