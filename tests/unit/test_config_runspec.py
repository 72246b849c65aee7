"""Our own runs as configs."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.specs import Job, MethodSpec, TrainingSpec
from tests.config_cases import CONFIGS, after, changed, read, written
from tests.export_cases import estimate_of, run_of

RUN: dict[str, Any] = {"model": "google-t5/t5-base", "method": "lora", "training": {}}


def test_a_run_object() -> None:
    config = read("runspec/run.json")
    assert (config.tool, config.version) == ("runspec", version("peftadvisor"))
    assert (config.model, config.gpus, config.sharding) == ("google-t5/t5-base", 1, "ddp")
    assert config.method == MethodSpec(name="lora").with_settings(
        rank=16, target_modules=("q", "v", "o")
    )
    assert changed(config.training) == {
        "micro_batch_size": 8,
        "seq_len": 256,
        "target_len": 64,
        "padded": True,
        "dtype": "fp32",
    }
    assert (config.job, config.learning_rate, config.unknown) == (Job(), None, ())


def test_a_whole_estimate() -> None:
    config = read("runspec/estimate.json")
    assert (config.model, config.gpus, config.sharding) == ("meta-llama/Llama-3.1-8B", 4, "zero-2")
    assert config.method == MethodSpec(name="qlora").with_settings(rank=64, alpha=32)
    traced = {trace.name: trace for trace in config.traced}
    assert traced["optimizer"].key == "run.training.optimizer"
    assert traced["optimizer"].source == "run.training.optimizer: paged-adamw-8bit"
    assert traced["rank"].key == "run.method_config.rank"


def test_what_estimate_writes_is_read_back(tmp_path: Path) -> None:
    run = run_of("lora", micro_batch_size=4, quantization="nf4", max_grad_norm=0.5, seq_len=99)
    spec = MethodSpec(name="lora").with_settings(rank=4, target_modules=("q_proj", "o_proj"))
    estimate = estimate_of(replace(run, method=spec, gpus=2, sharding="zero-3"))
    for values in (estimate.to_dict(), estimate.run.to_dict()):
        config = read(written(tmp_path, values, "run.json"))
        assert (config.model, config.method) == (estimate.run.model.id, estimate.run.method)
        assert config.training == estimate.run.training
        assert (config.gpus, config.sharding) == (estimate.run.gpus, estimate.run.sharding)
        assert config.unknown == ()


def test_what_is_left_out_is_a_default_of_ours(tmp_path: Path) -> None:
    config = read(written(tmp_path, RUN, "run.json"))
    assert config.training == TrainingSpec()
    traced = {trace.name: trace for trace in config.traced}
    assert traced["seq_len"].key is None
    assert traced["seq_len"].source == f"default of peftadvisor {version('peftadvisor')}"


def test_misspelt_keys_are_unknown(tmp_path: Path) -> None:
    values = {**RUN, "sharding": "ddp", "training": {"seqlen": 8}, "gpuss": 2}
    assert set(read(written(tmp_path, values, "run.json")).unknown) == {"training.seqlen", "gpuss"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "loro"}, "'method': unknown method 'loro'"),
        ({"method_config": {"rang": 1}}, "'method': lora has no setting 'rang'"),
        ({"training": 3}, "'training' is 3; write a mapping"),
        ({"method_config": [1]}, "'method_config' is [1]; write a mapping"),
        ({"training": {"dtype": "int4"}}, "'training.dtype' is int4; known here: bf16, fp16, fp32"),
        (
            {"training": {"seq_len": 0}},
            "'training.seq_len' is 0; write a whole number of 1 or more",
        ),
        ({"training": {"padded": "perhaps"}}, "'training.padded' is perhaps; write true or false"),
        ({"sharding": "zero-9"}, "'sharding' is zero-9; known here: ddp, fsdp, zero-1"),
        ({"gpus": 0}, "'gpus' is 0; write a whole number of 1 or more"),
        ({"model": ""}, "'model' is ; write a name"),
    ],
)
def test_refusals_name_file_and_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    path = written(tmp_path, {**RUN, **values}, "run.json")
    with pytest.raises(UsageError) as refused:
        read(path)
    assert str(refused.value).startswith(str(path))
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["run.json", "estimate.json"])
def test_a_setting_that_is_none_of_trainings_is_not_said(name: str) -> None:
    assert after(CONFIGS / "runspec" / name, {"rank": 4}) is None
