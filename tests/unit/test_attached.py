"""Saving and loading what a method added: only what must be kept, and nothing else gets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftadvisor.errors import UsageError
from peftadvisor.methods import find_method
from peftadvisor.methods.attached import Attached, attach
from peftadvisor.simulator.conformance import MODELS


def llama() -> Any:
    import transformers

    raw = dict(MODELS["llama"])
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM._from_config(config)


def attached(name: str, **settings: Any) -> Attached:
    method = find_method(name)
    return attach(method, llama(), {**method.defaults, **settings})


def test_only_the_adapters_are_kept() -> None:
    lora = attached("lora")
    # r(in + out) of q (64 to 64) and v (64 to 32) in two layers, rank 8.
    assert sum(t.numel() for t in lora.state().values()) == 2 * 8 * (128 + 96)


def test_another_method_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    attached("lora").save(path)
    with pytest.raises(UsageError, match="holds lora, not dora; attach that method"):
        attached("dora").load(path)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    attached("lora").save(path)
    with pytest.raises(UsageError, match="does not fit; attach with the settings it had"):
        attached("lora", rank=4).load(path)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"adapter.safetensors cannot be read .*; save it again"):
        attached("lora").load(path)


def test_what_cannot_be_merged_says_so() -> None:
    with pytest.raises(UsageError, match="houlsby cannot be merged into the model"):
        attached("houlsby").merge()
