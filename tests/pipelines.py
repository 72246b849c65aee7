"""The examples for pipelines, read as their hosts read them, for tests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
_INPUT = re.compile(r"\$\{\{ *inputs\.([a-z-]+) *\}\}")


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a step of the Action left behind."""

    code: int
    log: str
    outputs: dict[str, str]


def run_action(repository: Path, program: str, **inputs: str) -> Ran:
    """The Action's check step as GitHub's runner has it, with this text as ``peftadvisor``."""
    action = read_yaml("action.yml")
    values = {name: one.get("default") for name, one in action["inputs"].items()}
    values.update({name.replace("_", "-"): value for name, value in inputs.items()})
    assert None not in values.values()
    step = next(one for one in action["runs"]["steps"] if one["id"] == "check")
    given = {name: _INPUT.sub(lambda m: values[m[1]], text) for name, text in step["env"].items()}
    temporary = repository.parent / "runner"
    put_program(temporary / "peftadvisor" / "bin", program)
    script, outputs = temporary / "step.sh", temporary / "outputs"
    script.write_text(step["run"], encoding="utf-8")
    outputs.write_text("", encoding="utf-8")
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
        cwd=repository,
        env={
            **os.environ,
            **given,
            "RUNNER_TEMP": str(temporary),
            "GITHUB_OUTPUT": str(outputs),
        },
        capture_output=True,
        text=True,
    )
    lines = outputs.read_text(encoding="utf-8").splitlines()
    written = dict(line.split("=", 1) for line in lines)
    return Ran(code=done.returncode, log=done.stdout, outputs=written)


def put_program(folder: Path, text: str) -> None:
    """An executable ``peftadvisor`` in Python."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "peftadvisor"
    program.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    program.chmod(0o755)


def make_repository(folder: Path, files: dict[str, str]) -> Path:
    """A git repository with these files in its index."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for arguments in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def hook_files(repository: Path, settings: dict[str, Any]) -> list[str]:
    """The files that pre-commit would pass: of the index, by pattern and by type."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True
    )
    endings = {"yaml": (".yaml", ".yml"), "json": (".json",)}
    allowed = tuple(end for kind in settings["types_or"] for end in endings[kind])
    return [
        name
        for name in listed.stdout.split("\0")
        if name.endswith(allowed)
        and re.search(settings["files"], name)
        and not re.search(settings["exclude"], name)
    ]


def hook_command(settings: dict[str, Any], arguments: list[str], files: list[str]) -> list[str]:
    """The command line that pre-commit makes of a hook."""
    assert settings["language"] == "python"
    return [*shlex.split(settings["entry"]), *arguments, *files]


@dataclass(slots=True)
class Operator:
    """Stands for Airflow's operator: what it was made with, and what runs after it."""

    arguments: dict[str, Any]
    after: list[Operator] = field(default_factory=list)

    def __rshift__(self, other: Operator) -> Operator:
        self.after.append(other)
        return other


@dataclass(slots=True)
class Flow:
    """Stands for Airflow's DAG."""

    arguments: dict[str, Any]

    def __enter__(self) -> Flow:
        return self

    def __exit__(self, *_: object) -> None: ...


def airflow_modules() -> dict[str, types.ModuleType]:
    """Modules by name with the names that the example takes from Airflow 3."""
    operator = "airflow.providers.standard.operators.bash"
    parts = operator.split(".")
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    modules = {name: types.ModuleType(name) for name in (*names, "airflow.sdk")}
    vars(modules[operator])["BashOperator"] = lambda **given: Operator(given)
    vars(modules["airflow.sdk"]).update(
        DAG=lambda **given: Flow(given), Param=lambda default, **schema: (default, schema)
    )
    return modules
