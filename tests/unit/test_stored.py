"""Checkpoints that are quantized already, as their own config.json tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.stored import as_stored
from peftadvisor.integrations.configs.value import ReadConfig
from peftadvisor.profiles import Estimate
from peftadvisor.specs import ModelSpec
from tests.verdicts import config_of


@pytest.fixture
def config(estimate: Estimate) -> ReadConfig:
    return config_of(estimate)


def stored(model: ModelSpec, **told: Any) -> ModelSpec:
    return replace(model, config={**model.config, "quantization_config": told})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, "nf4-dq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4"),
    ],
)
def test_kinds(told: dict[str, Any], expected: str, config: ReadConfig, model: ModelSpec) -> None:
    found = as_stored(config, stored(model, **told))
    assert found.training.quantization == expected
    (trace,) = (t for t in found.traced if t.name == "quantization")
    assert (trace.value, trace.key) == (expected, None)
    assert "quantization_config" in trace.source


def test_plain_ones_stay(config: ReadConfig, model: ModelSpec) -> None:
    assert as_stored(config, model) is config


@pytest.mark.parametrize(
    "told", [{"quant_method": "awq", "bits": 4}, {"quant_method": "gptq", "bits": 8}, {}]
)
def test_others_are_refused(told: dict[str, Any], config: ReadConfig, model: ModelSpec) -> None:
    with pytest.raises(UsageError, match="which is not predicted"):
        as_stored(config, stored(model, **told))
