"""A method of somebody else's package: found by its entry point, held to the same checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "method_package"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the example is installed as pip would install it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "output_scale.py", tmp_path)
    info = tmp_path / "peftadvisor_output_scale-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n"
    )
    (entry,) = project["entry-points"]["peftadvisor.methods"].items()
    (info / "entry_points.txt").write_text(f"[peftadvisor.methods]\n{entry[0]} = {entry[1]}\n")
    path = os.pathsep.join([str(tmp_path), str(EXAMPLE.parents[1])])
    return {**os.environ, "PYTHONPATH": path}


def run(code: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", *code], capture_output=True, text=True, env=environment
    )


def test_it_keeps_the_same_promises(installed: dict[str, str]) -> None:
    done = run(["-m", "peftadvisor.profilers.conformance", "output-scale"], installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["ok"] * 3


def test_it_is_listed_and_estimated(installed: dict[str, str]) -> None:
    code = "import sys; from peftadvisor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    listed = run(["-c", code, "list", "methods", "output-scale"], installed)
    assert "Scales on attention outputs" in listed.stdout
    asked = ["estimate", "--model", "t5-small", "--gpu", "t4", "--method", "output-scale"]
    assert run(["-c", code, *asked], installed).returncode == 0


def test_what_is_no_method_is_one_clear_line(installed: dict[str, str]) -> None:
    folder = Path(installed["PYTHONPATH"].split(os.pathsep)[0])
    (folder / "output_scale.py").write_text("OUTPUT_SCALE = 'no method'\n")
    code = "import sys; from peftadvisor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(["-c", code, "list", "methods"], installed)
    assert done.returncode == 2
    assert "entry point 'output-scale' of peftadvisor-output-scale is no Method" in done.stderr
    assert "Traceback" not in done.stderr
