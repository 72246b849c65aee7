"""Examples for pipelines run as their hosts run them, against a stand-in for the program."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines import (
    ROOT,
    Operator,
    Ran,
    airflow_modules,
    hook_command,
    hook_files,
    make_repository,
    put_program,
    read_yaml,
    run_action,
)

# Notes its arguments in a file, writes what it is asked to, and ends as it is told.
STAND_IN = """
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "--out" in sys.argv:
    open(sys.argv[sys.argv.index("--out") + 1], "w").close()
print("checked")
sys.exit(int(os.environ.get("CODE", "0")))
"""
FILES = {
    "configs/a.yaml": "",
    "configs/deep/b c.yaml": "",
    "configs/notes.txt": "",
    "-x.yaml": "",
    "$(touch pwned).yaml": "",
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return make_repository(tmp_path / "work", FILES)


def calls() -> list[list[str]]:
    path = Path(os.environ["CALLS"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def act(repository: Path, **inputs: str) -> Ran:
    return run_action(repository, STAND_IN, **inputs)


def test_the_action_checks_twice(repository: Path) -> None:
    """For the log and for the file."""
    ran = act(repository, config="configs/**/*.yaml", gpu="a100-80g", max_hours="12")
    shared = ["check", "--gpu", "a100-80g", "--max-hours", "12", "--format"]
    files = ["--", "configs/a.yaml", "configs/deep/b c.yaml"]
    assert calls() == [
        [*shared, "github", *files],
        [*shared, "sarif", "--out", "peftadvisor.sarif", *files],
    ]
    assert ran == Ran(
        code=0,
        log="checked\nchecked\n",
        outputs={"exit-code": "0", "sarif": "peftadvisor.sarif"},
    )
    assert (repository / "peftadvisor.sarif").exists()


def test_the_action_passes_all_its_inputs(repository: Path) -> None:
    act(
        repository,
        config="configs/a.yaml",
        gpu="h100",
        gpus="4",
        max_risk="0.1",
        max_hours="2.5",
        max_usd="40",
        format="text",
        sarif="out/of the way.sarif",
    )
    given = ["--gpus", "4", "--max-risk", "0.1", "--max-hours", "2.5", "--max-usd", "40"]
    first, second = calls()
    assert first == ["check", "--gpu", "h100", *given, "--format", "text", "--", "configs/a.yaml"]
    assert second[-4:] == ["--out", "out/of the way.sarif", "--", "configs/a.yaml"]


@pytest.mark.parametrize(
    ("code", "times", "sarif"), [("3", 2, True), ("4", 2, True), ("2", 1, False), ("1", 1, False)]
)
def test_the_action_ends_as_the_check_does(
    code: str, times: int, sarif: bool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", code)
    ran = act(repository, config="configs/a.yaml", gpu="a100-80g")
    assert (ran.code, len(calls())) == (int(code), times)
    assert ran.outputs["exit-code"] == code
    assert ("sarif" in ran.outputs) == sarif


def test_the_action_runs_no_input(repository: Path) -> None:
    names = "-x.yaml\n$(touch pwned).yaml\n;touch pwned\n`touch pwned`"
    act(repository, config=names, gpu="$(touch pwned)", max_usd='"; touch pwned; "')
    assert not (repository / "pwned").exists()
    assert calls()[0][-5:] == ["--", *names.split("\n")]
    assert calls()[0][1:5] == ["--gpu", "$(touch pwned)", "--max-usd", '"; touch pwned; "']


def test_the_action_says_that_nothing_matches(repository: Path) -> None:
    ran = act(repository, config="nowhere/*.yaml", gpu="a100-80g")
    assert ran == Ran(
        code=2,
        log="::error title=peftadvisor::no file matches the input 'config'\n",
        outputs={"exit-code": "2"},
    )
    assert calls() == []


def test_the_action_has_every_step_it_names() -> None:
    action = read_yaml("action.yml")
    steps = {step["id"]: step for step in action["runs"]["steps"]}
    assert list(steps) == ["python", "install", "check"]
    named = re.findall(r"steps\.(\w+)\.", json.dumps(action))
    assert set(named) <= set(steps)
    used = set(re.findall(r"inputs\.([a-z-]+)", json.dumps(action["runs"])))
    assert used == set(action["inputs"])
    # an expression in a script would be run
    assert not any("${{" in step.get("run", "") for step in steps.values())


def test_the_workflow_gives_what_the_action_takes() -> None:
    action, workflow = read_yaml("action.yml"), read_yaml("examples/github-action/workflow.yml")
    steps = workflow["jobs"]["check"]["steps"]
    step = next(one for one in steps if one.get("id") == "peftadvisor")
    needed = {name for name, one in action["inputs"].items() if one.get("required")}
    assert needed <= set(step["with"]) <= set(action["inputs"])
    assert all(isinstance(value, str) for value in step["with"].values())
    outputs = set(re.findall(r"steps\.peftadvisor\.outputs\.([a-z-]+)", json.dumps(steps)))
    assert outputs <= set(action["outputs"])


HOOK = read_yaml(".pre-commit-hooks.yaml")[0]
USE = read_yaml("examples/pre-commit/.pre-commit-config.yaml")["repos"][0]["hooks"][0]


def test_the_hook_runs_on_configs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["configs/llama sft.yaml", "train.json", "axolotl/qlora.yml", "FineTune/run-dpo.yaml"]
    others = [
        "docker-compose.yaml",
        "src/train.py",
        "out/adapter_config.json",
        "trainer_state.json",
    ]
    repository = make_repository(tmp_path / "work", dict.fromkeys([*files, *others], ""))
    found = hook_files(repository, HOOK)
    assert sorted(found) == sorted(files)
    put_program(tmp_path / "bin", STAND_IN)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("CODE", "4")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    done = subprocess.run(hook_command(HOOK, USE["args"], found), cwd=repository, check=False)
    assert done.returncode == 4
    assert calls() == [["check", "--gpu", "a100-80g", "--max-hours", "12", *found]]


def test_the_example_uses_the_hook() -> None:
    assert USE["id"] == HOOK["id"] == "peftadvisor-check"
    assert re.search(USE["files"], "configs/deep/run.yaml")
    assert not re.search(USE["files"], "src/configs/run.yaml")


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name, module in airflow_modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return runpy.run_path(str(ROOT / "examples" / "airflow" / "preflight_dag.py"))


def test_training_waits_for_the_check(flow: dict[str, Any]) -> None:
    check, train = flow["check"], flow["train"]
    assert isinstance(check, Operator)
    assert check.after == [train]
    assert train.after == []
    assert check.arguments["retries"] == 0
    # those of BashOperator and BaseOperator in Airflow 3.3 that matter here
    known = {"task_id", "bash_command", "env", "append_env", "retries", "cwd", "pool", "queue"}
    for operator in (check, train):
        assert {"task_id", "bash_command"} <= set(operator.arguments) <= known
        assert operator.arguments["append_env"] is True  # else PATH is gone
        # the trigger's words reach the shell as variables, so it does not run them
        assert "{{" not in operator.arguments["bash_command"]


def test_the_dag_gives_the_check_its_limits(
    flow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = flow["check"].arguments
    params = {name: default for name, (default, _) in flow["dag"].arguments["params"].items()}
    params["config"] = "/opt/$(touch pwned) a.yaml"
    named = {
        name: re.fullmatch(r"\{\{ params\.(\w+) \}\}", v) for name, v in arguments["env"].items()
    }
    for name, match in named.items():
        assert match is not None
        monkeypatch.setenv(name, str(params.pop(match[1])))
    assert params == {}
    put_program(tmp_path / "bin", STAND_IN)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    subprocess.run(["bash", "-c", arguments["bash_command"]], cwd=tmp_path, check=True)
    limits = ["--gpu", "a100-80g", "--max-hours", "12", "--max-usd", "40"]
    assert calls() == [["check", *limits, "--", "/opt/$(touch pwned) a.yaml"]]
    assert not (tmp_path / "pwned").exists()


def test_the_job_checks_the_config_that_it_trains_with() -> None:
    import yaml

    text = (ROOT / "examples" / "kubernetes" / "job.yaml").read_text(encoding="utf-8")
    config, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    (check,), (train,) = pod["initContainers"], pod["containers"]
    assert check["command"] == ["peftadvisor", "check"]
    (mount,) = check["volumeMounts"]
    assert mount in train["volumeMounts"]
    (volume,) = pod["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (
        mount["name"],
        config["metadata"]["name"],
    )
    (file,) = config["data"]
    path = f"{mount['mountPath']}/{file}"
    assert check["args"][-1] == path
    assert path in train["command"]
    assert all(isinstance(argument, str) for argument in check["args"])
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == check["name"]
    assert rule["onExitCodes"]["values"] == [2, 3, 4]
    assert pod["restartPolicy"] == "Never"


def test_every_example_is_described() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert set(re.findall(r"`([a-z_-]+)/`", listed)) == folders
