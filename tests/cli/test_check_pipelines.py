"""``peftadvisor check`` in pipelines: the examples with the real command, and all its formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from peftadvisor.cli.main import main
from tests.check_formats import github_commands, junit_root, sarif_run
from tests.pipelines import ROOT, hook_command, hook_files, make_repository, read_yaml, run_action

PROGRAM = """
import sys
from peftadvisor.cli.main import main
from peftadvisor.simulator import obtain
obtain.find_spec = lambda name: None  # nothing is recorded: what ships answers
sys.exit(main())
"""
CONFIG, JOB = yaml.safe_load_all(
    (ROOT / "examples" / "kubernetes" / "job.yaml").read_text(encoding="utf-8")
)
# Llama 3.1 8B with LoRA, checkpointed: 16 GB of weights fit an 80 GB card, and no 12 GB one.
TEXT = CONFIG["data"]["sft.yaml"]
LARGE, SMALL = "a100-80g", "rtx-3060-12g"
Answer = Callable[..., tuple[int, str]]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "configs/sft.yaml": TEXT,
        "configs/lora 2.yaml": TEXT,
        "compose.yaml": "services: {}\n",
    }
    folder = make_repository(tmp_path / "work", files)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("peftadvisor.simulator.obtain.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def check(repository: Path, capsys: pytest.CaptureFixture[str]) -> Answer:
    def answer(*arguments: str) -> tuple[int, str]:
        code = main(["check", *arguments])
        printed = capsys.readouterr()
        assert printed.err == ""
        return code, printed.out

    return answer


def test_the_action_on_a_config_that_fits(repository: Path) -> None:
    ran = run_action(repository, PROGRAM, config="configs/*.yaml", gpu=LARGE)
    assert (ran.code, ran.outputs["exit-code"]) == (0, "0")
    found = github_commands(ran.log)
    assert {one.properties["file"] for one in found} == {"configs/sft.yaml", "configs/lora 2.yaml"}
    assert "error" not in {one.command for one in found}
    assert [one.properties["title"] for one in found if one.message.startswith("predicted ")] == [
        "peftadvisor: fits"
    ] * 2
    run = sarif_run((repository / ran.outputs["sarif"]).read_text(encoding="utf-8"))
    assert [one["location"]["uri"] for one in run["artifacts"]] == [
        "configs/lora%202.yaml",
        "configs/sft.yaml",
    ]


def test_the_action_on_a_config_that_does_not(repository: Path) -> None:
    ran = run_action(repository, PROGRAM, config="configs/sft.yaml", gpu=SMALL)
    assert (ran.code, ran.outputs["exit-code"]) == (3, "3")
    first = github_commands(ran.log)[0]
    assert (first.command, first.properties["title"]) == ("error", "peftadvisor: out-of-memory")
    run = sarif_run((repository / ran.outputs["sarif"]).read_text(encoding="utf-8"))
    assert [(run["results"][0][name]) for name in ("ruleId", "level")] == ["out-of-memory", "error"]


def test_the_action_on_a_limit(repository: Path) -> None:
    """A thousand steps of 8 × 2 × 2048 tokens take far more than a second."""
    ran = run_action(repository, PROGRAM, config="configs/sft.yaml", gpu=LARGE, max_hours="0.0003")
    assert ran.code == 3
    assert github_commands(ran.log)[0].properties["title"] == "peftadvisor: max-hours"


def test_the_action_on_what_is_no_config(repository: Path) -> None:
    ran = run_action(repository, PROGRAM, config="compose.yaml", gpu=LARGE)
    assert (ran.code, ran.outputs) == (2, {"exit-code": "2"})


def test_the_hook(check: Answer, repository: Path) -> None:
    (hook,) = read_yaml(".pre-commit-hooks.yaml")
    files = hook_files(repository, hook)
    assert sorted(files) == ["configs/lora 2.yaml", "configs/sft.yaml"]
    program, command, *arguments = hook_command(
        hook, ["--gpu", LARGE, "--max-hours", "1000"], files
    )
    assert (program, command) == ("peftadvisor", "check")
    code, text = check(*arguments)
    assert code == 0
    assert text.startswith("2 of 2 configs pass\n")


def test_the_init_container(check: Answer) -> None:
    (container,) = JOB["spec"]["template"]["spec"]["initContainers"]
    *arguments, path = container["args"]
    code, text = check(*arguments, path.replace("/config/", "configs/"))
    assert code == 0
    assert text.startswith("✔ fits: ")
    assert "Unknown keys" not in text


def test_every_format_of_several(check: Answer) -> None:
    asked = ("configs/sft.yaml", "configs/lora 2.yaml", "--gpu", SMALL, "--max-hours", "1000")
    readers: dict[str, Callable[[str], Any]] = {
        "json": json.loads,
        "junit": junit_root,
        "github": github_commands,
        "sarif": sarif_run,
    }
    found = {}
    for fmt, read in readers.items():
        code, text = check(*asked, "--format", fmt)
        assert code == 3
        found[fmt] = read(text)
    assert [one["exit_code"] for one in found["json"]["checks"]] == [3, 3]
    assert [suite.get("name") for suite in found["junit"]] == list(asked[:2])
    for suite in found["junit"]:
        names = [case.get("name") for case in suite.iter("testcase")]
        assert names[:2] == ["out-of-memory", "max-hours"]  # asked for, whether missed or kept
    assert len(found["sarif"]["artifacts"]) == 2
    errors = [one for one in found["github"] if one.command == "error"]
    assert {one.properties["file"] for one in errors} == set(asked[:2])


def test_a_report_in_a_file(check: Answer, repository: Path) -> None:
    code, text = check(
        "configs/sft.yaml", "--gpu", LARGE, "--format", "junit", "--out", "report.xml"
    )
    assert (code, text) == (0, "")
    root = junit_root((repository / "report.xml").read_text(encoding="utf-8"))
    assert root.get("failures") == "0"
