"""Formulas of trained parameters against the real modules of architectures of many kinds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from peftadvisor.data.models import find_model
from peftadvisor.errors import UnsupportedError
from peftadvisor.methods import find_method
from peftadvisor.methods.attached import attach
from peftadvisor.methods.sites import Layout, layout_of
from peftadvisor.simulator.build import build_model
from peftadvisor.simulator.depth import at_depth, depth_fields
from peftadvisor.specs import TrainingSpec

LAYERS = 6
# What PEFT's tables name, a vision tower beside the language model, fused projections, biases.
MODELS = {
    "microsoft/phi-2": "LoRA's table names the feed-forward layers too",
    "Qwen/Qwen2.5-0.5B": "(IA)3's table names queries, not keys",
    "google/gemma-3-4b-it": "all-linear reaches the vision tower",
    "openai-community/gpt2": "projections are fused, and Conv1D",
    "distilbert/distilbert-base-uncased": "an encoder alone",
    "facebook/bart-large": "an encoder-decoder with biases",
}
METHODS = ("lora", "lora-all", "ia3", "dora", "vera", "houlsby", "unipelt", "bitfit", "lorta")

# No biases in one, no projections apart from each other in the other.
REFUSED = {("bitfit", "google/gemma-3-4b-it"), ("lorta", "openai-community/gpt2")}


def built(name: str) -> Any:
    model = find_model(name)
    shallow = {f: min(n, LAYERS) for f, n in depth_fields(model.config).items()}
    return build_model(replace(model, config=at_depth(model.config, shallow)), TrainingSpec())


@cache
def layout(name: str) -> Layout:
    return layout_of(built(name))


# PEFT says so of layers that hold their weight transposed, and goes on.
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("name", MODELS, ids=lambda name: name.split("/")[1])
@pytest.mark.parametrize("method", METHODS)
def test_formula_counts_what_the_module_trains(method: str, name: str) -> None:
    chosen = find_method(method)
    if (method, name) in REFUSED:
        with pytest.raises(UnsupportedError):
            attach(chosen, built(name))
        return
    attached = attach(chosen, built(name))
    assert chosen.trainable(layout(name), chosen.defaults) == attached.trained
