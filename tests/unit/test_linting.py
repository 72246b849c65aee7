"""Every rule of a check: one config that fires it, and one close by that does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.data.run_rules import load_config_rules, load_run_rules
from peftadvisor.integrations.checked import Problem
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of
from peftadvisor.integrations.linting import KEYS, PREDICATES, lint
from peftadvisor.profiles import Estimate
from peftadvisor.specs import RunSpec
from tests.run_examples import EXAMPLES, Run

AXOLOTL: dict[str, Any] = {
    "base_model": "meta-llama/Llama-3.1-8B",
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "sequence_len": 512,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "optimizer": "adamw_torch",
    "learning_rate": 2e-4,
    "num_epochs": 1,
    "bf16": True,
    "datasets": [{"path": "data.jsonl", "type": "alpaca"}],
}
OURS: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "method": "lora",
    "method_config": {},
    "training": {"micro_batch_size": 2},
}
TRL: dict[str, Any] = {
    "model_name_or_path": "meta-llama/Llama-3.1-8B",
    "dataset_name": "data",
    "use_peft": True,
    "learning_rate": 2e-4,
    "per_device_train_batch_size": 2,
    "max_length": 512,
    "output_dir": "out",
}
Config = dict[str, Any]


def without(config: Config, *names: str, **changes: Any) -> Config:
    return {**{k: v for k, v in config.items() if k not in names}, **changes}


def ours(**training: Any) -> Config:
    return {**OURS, "training": training}


# (a config, where it runs) that fires the rule, and one that does not
CONFIGS: dict[str, tuple[tuple[Config, dict[str, Any]], tuple[Config, dict[str, Any]]]] = {
    "alpha-alone": (
        (without(TRL, lora_alpha=64), {}),
        (without(TRL, lora_alpha=64, lora_r=32), {}),
    ),
    "rank-alone": ((without(TRL, lora_r=64), {}), (without(TRL, lora_alpha=64, lora_r=32), {})),
    "reentrant-frozen": (
        (ours(gradient_checkpointing="reentrant"), {}),
        (ours(gradient_checkpointing="non-reentrant"), {}),
    ),
    # 42 M trained parameters save 0.25 GB of 24 GB; 1 B save 6 GB.
    "tiny-8bit": (
        (without(AXOLOTL, optimizer="adamw_bnb_8bit"), {"trainable": 10**7}),
        (without(AXOLOTL, optimizer="adamw_bnb_8bit"), {"trainable": 10**9}),
    ),
    "packed-mask": (
        (without(AXOLOTL, sample_packing=True), {}),
        (without(AXOLOTL, sample_packing=True, flash_attention=True), {}),
    ),
    "gpus-batch": ((AXOLOTL, {"gpus": 4}), (AXOLOTL, {"gpus": 1})),
    "pure-fp16": ((ours(dtype="fp16"), {}), (ours(dtype="fp16", amp=True), {})),
    "bf16-unsupported": ((AXOLOTL, {"gpu": "t4"}), (AXOLOTL, {"gpu": "l4"})),
    "length-positions": (
        (without(AXOLOTL, sequence_len=4096, base_model="facebook/opt-1.3b"), {}),
        (without(AXOLOTL, sequence_len=4096), {}),
    ),
}


@dataclasses.dataclass
class Linter:
    folder: Path
    estimate: Estimate

    def problems(
        self, config: Config, gpu: str = "l4", gpus: int = 1, trainable: int = 10**9
    ) -> list[Problem]:
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        file = read_config_file(path)
        read = tool_of(file).read(file)
        run = RunSpec(
            model=find_model(read.model),
            method=read.method,
            training=read.training,
            gpu=find_gpu(gpu),
            gpus=gpus,
        )
        parameters = dataclasses.replace(self.estimate.parameters, trainable=trainable)
        found = dataclasses.replace(self.estimate, run=run, parameters=parameters)
        return list(lint(read, found))


@pytest.fixture
def linter(tmp_path: Path, estimate: Estimate) -> Linter:
    return Linter(tmp_path, estimate)


def of_run(run: Run) -> Config:
    """The run of another test as a config of ours."""
    training = {} if run["training"] is None else dataclasses.asdict(run["training"])
    config = {
        "model": run["model"],
        "method": run["method"],
        "method_config": run["settings"],
        "training": training,
        "learning_rate": run["rate"],
        "job": dataclasses.asdict(run["job"]),
    }
    return {name: value for name, value in config.items() if value is not None}


def test_every_rule_has_a_predicate_a_key_and_examples() -> None:
    assert list(load_config_rules()) == list(PREDICATES) == list(CONFIGS)
    assert set(KEYS) == {*load_config_rules(), *load_run_rules()}


@pytest.mark.parametrize("rule", CONFIGS)
def test_rules_on_configs(rule: str, linter: Linter) -> None:
    (bad, where), (good, there) = CONFIGS[rule]
    assert rule in {found.rule for found in linter.problems(bad, **where)}
    assert rule not in {found.rule for found in linter.problems(good, **there)}


PAIRS = [(rule, *pair) for rule, pairs in EXAMPLES.items() for pair in pairs]


@pytest.mark.parametrize(("rule", "bad", "good"), PAIRS, ids=[rule for rule, _, _ in PAIRS])
def test_rules_on_runs(rule: str, bad: Run, good: Run, linter: Linter) -> None:
    assert rule in {found.rule for found in linter.problems(of_run(bad))}
    assert rule not in {found.rule for found in linter.problems(of_run(good))}


def test_a_problem_names_its_key_and_source(linter: Linter) -> None:
    (found,) = (p for p in linter.problems(without(TRL, lora_r=64)) if p.rule == "rank-alone")
    assert (found.level, found.key) == ("warning", "lora_r")
    assert found.source == load_config_rules()["rank-alone"].source


def test_tools_that_have_inputs_require_gradients_are_not_warned(linter: Linter) -> None:
    config = without(
        AXOLOTL,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": True},
    )
    assert "reentrant-frozen" not in {found.rule for found in linter.problems(config)}
