"""The stage of ZeRO behind a config's ``deepspeed`` key."""

import json
from pathlib import Path

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.deepspeed import sharding_of

OPTIMIZER = "DeepSpeed's offload of optimizer states is left out of the prediction"
WEIGHTS = "DeepSpeed's offload of weights is left out of the prediction"


def _zero(**values: object) -> dict[str, object]:
    return {"zero_optimization": values}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("ddp", ())),
        (_zero(stage=0), ("ddp", ())),
        (_zero(stage=1), ("zero-1", ())),
        (_zero(stage=2), ("zero-2", ())),
        (_zero(stage=3), ("zero-3", ())),
        (_zero(stage=2, offload_optimizer={"device": "cpu"}), ("zero-2", (OPTIMIZER,))),
        (_zero(stage=3, offload_optimizer={"device": "none"}), ("zero-3", ())),
        (_zero(stage=2, cpu_offload=True, offload_optimizer={}), ("zero-2", (OPTIMIZER,))),
        (
            _zero(stage=3, offload_optimizer={"device": "cpu"}, offload_param={"device": "nvme"}),
            ("zero-3", (OPTIMIZER, WEIGHTS)),
        ),
    ],
)
def test_the_stage_of_a_mapping_and_of_a_file_beside_the_config(
    config: dict[str, object], expected: tuple[str, tuple[str, ...]], tmp_path: Path
) -> None:
    assert sharding_of(config, tmp_path, "config.yaml") == expected
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds" / "any.json").write_text(json.dumps(config))
    assert sharding_of("ds/any.json", tmp_path, "config.yaml") == expected


@pytest.mark.parametrize(
    ("path", "sharding"),
    [
        ("deepspeed_configs/zero1.json", "zero-1"),
        ("deepspeed_configs/zero3_bf16.json", "zero-3"),
        ("examples/deepspeed/ds_z0_config.json", "ddp"),
        ("examples/deepspeed/ds_z2_config.json", "zero-2"),
        ("stage-3.json", "zero-3"),
    ],
)
def test_a_file_that_is_not_here_tells_its_stage_by_name(
    path: str, sharding: str, tmp_path: Path
) -> None:
    note = f"{path} is not here, so the stage of ZeRO is read off its name"
    assert sharding_of(path, tmp_path, "config.yaml") == (sharding, (note,))


def test_offload_by_name_is_noted(tmp_path: Path) -> None:
    found, notes = sharding_of("ds_z3_offload_config.json", tmp_path, "config.yaml")
    assert found == "zero-3"
    assert notes[1] == "DeepSpeed's offload is left out of the prediction"


@pytest.mark.parametrize("path", ["ds_config.json", "zero2_then_zero3.json", "z30.json", "\0"])
def test_a_file_that_is_not_here_and_tells_nothing_is_an_error(path: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml: 'deepspeed' is .*not there"):
        sharding_of(path, tmp_path, "config.yaml")


@pytest.mark.parametrize("stage", [4, -1, "auto", True, [2], 2.5])
def test_a_stage_that_zero_does_not_have(stage: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml: 'deepspeed' has the stage .* 0, 1, 2 and"):
        sharding_of(_zero(stage=stage), tmp_path, "config.yaml")


@pytest.mark.parametrize("config", [3, True, "", ["zero2.json"]])
def test_neither_a_path_nor_a_mapping(config: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="write the path of a JSON file or its content"):
        sharding_of(config, tmp_path, "config.yaml")


def test_a_stage_without_a_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no mapping"):
        sharding_of({"zero_optimization": 2}, tmp_path, "config.yaml")


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "zero2.json").write_text("{")
    with pytest.raises(UsageError, match=r"zero2\.json is not valid JSON"):
        sharding_of("zero2.json", tmp_path, "config.yaml")
