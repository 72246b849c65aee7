"""Saving and loading what a method added: only what must be kept, and nothing else gets in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftadvisor.errors import UsageError
from peftadvisor.methods import find_method
from peftadvisor.methods.attached import Attached, attach
from peftadvisor.profilers.conformance import MODELS


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


@pytest.mark.parametrize(
    ("name", "settings"), [("lisa", {"active": 1, "interval": 1}), ("badam", {"interval": 1})]
)
def test_layers_whose_turn_is_over_are_kept(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    one, other = attached(name, **settings), attached(name, **settings)
    first = [p for p in one.model.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in first:
            p.add_(1)  # the first turn trains
    turns = iter(range(20))
    while all(p.requires_grad for p in first):
        one.method.before_step(one.model, next(turns))
    one.save(tmp_path / "adapter.safetensors")
    other.load(tmp_path / "adapter.safetensors")
    for ours, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


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
