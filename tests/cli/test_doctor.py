"""``peftadvisor doctor`` and ``--version --verbose``: what is told of an installation."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.cli.main import main
from peftadvisor.cost_model import rates
from peftadvisor.data.calibrations import Head, Probe, calibration_path, new_calibration
from peftadvisor.data.models import find_model, model_ids
from peftadvisor.integrations import examining, installed
from peftadvisor.integrations.installed import within
from peftadvisor.simulator import library
from tests.unit.test_devices import A100, FakeNVML, FakeNVMLError

REQUIRES = [
    "click>=8.2",
    "numpy>=1.26",
    'torch<2.16,>=2.11; extra == "profile"',
    'transformers<6,>=5.23; extra == "profile"',
    'tokenizers>=0.23.1; extra == "data"',
    'pytest>=8.4; extra == "dev"',
]
HERE = {
    "peftadvisor": "0.1.0",
    "click": "8.2",
    "numpy": "2.4.6",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
}


class Driver(FakeNVML):
    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no variables, no driver."""
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PEFTADVISOR_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return tmp_path


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, to be changed by a test."""
    there = dict(HERE)
    monkeypatch.setattr(installed, "requires", lambda _: REQUIRES)
    monkeypatch.setattr(installed, "found_version", there.get)
    monkeypatch.setattr(examining, "found_version", there.get)
    return there


def told(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict[str, Any]]:
    """The checks that doctor prints, by name."""
    assert main(["doctor", "--format", "json"]) == code
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    assert answer["works"] is (code == 0)
    return {check["name"]: check for check in answer["checks"]}


@pytest.mark.parametrize(
    ("found", "wanted", "is_within"),
    [
        ("8.2", ">=8.2", True),
        ("8.2.0", ">=8.2", True),
        ("8.10", ">=8.2", True),  # numbers, not letters
        ("2.16.0", "<2.16,>=2.11", False),
        ("2.13.0+cpu", "<2.16,>=2.11", True),
        ("0.1.5.post20221221", ">=0.1.5.post20221221", True),
        ("5.23.4", "==5.23.*", True),
        ("5.24.0", "==5.23.*", False),
        ("2.13.0", "==2.13", True),
        ("1.0", "!=1", False),
        ("1.1", ">1,<=1.1", True),
        ("anything", "", True),
    ],
)
def test_ranges(found: str, wanted: str, is_within: bool) -> None:
    assert within(found, wanted) is is_within


def test_all_is_well(versions: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    checks = told(capsys)
    assert checks["click"]["found"] == "8.2"
    assert checks["torch"] == {
        "area": "recording",
        "name": "torch",
        "state": "ok",
        "found": "2.13.0+cpu",
        "remedy": "",
    }
    assert checks["tokenizers"]["state"] == "note"
    assert checks["tokenizers"]["remedy"] == "pip install 'peftadvisor[data]'"
    assert "pytest" not in checks
    assert checks["gpu"]["state"] == "note"
    assert "nvidia-ml-py" in checks["gpu"]["found"]
    assert checks["cache"]["found"] == "~/.cache/peftadvisor/recordings-1: 0 files, 0 B"


def test_versions_out_of_range(
    versions: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    versions |= {"click": "8.1", "torch": "2.16.0"}
    checks = told(capsys, code=1)
    assert (checks["click"]["state"], checks["click"]["found"]) == ("fault", "8.1, outside >=8.2")
    assert checks["click"]["remedy"] == "pip install 'click>=8.2'"
    assert checks["torch"]["state"] == "note"  # advice on bundled models does without
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("✘ peftadvisor 0.1.0 cannot advise: click\n")


def test_versions_that_are_known_to_differ(
    versions: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "requires", lambda _: ['transformers>=4; extra == "profile"'])
    versions |= {"transformers": "4.57.1", "bitsandbytes": "0.49.2"}
    checks = told(capsys)
    assert checks["transformers"]["state"] == "note"
    assert "--transformers 4" in checks["transformers"]["remedy"]
    assert checks["bitsandbytes"]["state"] == "note"
    versions["bitsandbytes"] = "0.50.0"
    assert told(capsys)["bitsandbytes"]["state"] == "ok"


def test_recordings_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "BUNDLED", tmp_path)
    assert told(capsys, code=1)["recordings"]["found"] == "none in ~"
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert "cannot be read" in told(capsys, code=1)["recordings"]["found"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("full.bf16", b"no recording")
    assert "cannot be read" in told(capsys, code=1)["recordings"]["found"]


def test_the_real_recordings(capsys: pytest.CaptureFixture[str]) -> None:
    shipped = library.bundled_keys()
    count = sum(find_model(name).config_key in shipped for name in model_ids())
    found = told(capsys)["recordings"]["found"]
    assert found.startswith(f"of {count} models, made with torch 2.13.0")


def test_a_gpu_and_its_calibration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nvml = Driver(A100, A100)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    checks = told(capsys)
    assert checks["driver"]["found"] == "580.65.06"
    # 40960 MiB less the 624 MiB that the driver reserves is 39.39 GiB
    assert checks["gpu"]["found"] == "2 × NVIDIA A100-SXM4-40GB, 39.39 GiB (a100-40g)"
    assert checks["calibration"]["state"] == "note"
    head = Head(
        device=A100[0], device_kind="cuda", versions={"torch": "2.13.0"}, date="2026-11-24T10:15:00"
    )
    with new_calibration(calibration_path(head), head) as file:
        file.add(Probe(kind="launch", operator="empty", seconds=5e-6, repeats=10))
    rates._rates.cache_clear()  # another process would look
    checks = told(capsys)
    assert checks["calibration"]["state"] == "ok"
    assert checks["calibrations"]["found"].startswith("~/.local/share/peftadvisor/calibrations: 1 ")
    assert nvml.open == 0


def test_gpus_that_help_little(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(("Acme 9000", 2**30, 0)))
    unknown = told(capsys)["gpu"]
    assert (unknown["state"], unknown["remedy"][:24]) == ("note", "unknown GPU 'Acme 9000';")
    monkeypatch.setitem(sys.modules, "pynvml", Driver(A100, mig=1))
    assert "split by MIG" in told(capsys)["gpu"]["found"]
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert told(capsys)["gpu"]["found"] == "none is visible here"


def test_a_driver_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Silent(Driver):
        def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
            raise FakeNVMLError("GPU is lost")

    monkeypatch.setitem(sys.modules, "pynvml", Silent(A100))
    assert "the driver says 'GPU is lost'" in told(capsys)["gpu"]["found"]


def test_the_environment_without_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example/hub")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    checks = told(capsys)
    assert checks["HF_ENDPOINT"]["found"] == "https://mirror.example/hub"
    assert checks["PYTORCH_ALLOC_CONF"]["state"] == "note"
    assert "--expandable-segments" in checks["PYTORCH_ALLOC_CONF"]["remedy"]
    assert checks["XDG_CACHE_HOME"]["found"] == "~/cache"
    assert "HF_HUB_OFFLINE" not in checks


def test_the_block_for_bug_reports(
    versions: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In either order of the two flags; the checks of doctor, a line each."""
    assert main(["--version", "--verbose"]) == 0
    first = capsys.readouterr().out
    assert main(["--verbose", "--version"]) == 0
    assert capsys.readouterr().out == first
    lines = first.splitlines()
    assert lines[0] == "peftadvisor 0.1.0"
    assert "torch: 2.13.0+cpu" in lines
    assert "tokenizers: is not installed [note]" in lines
    assert len(lines) == 1 + len(told(capsys))


def test_verbose_alone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--verbose", "list", "gpus"]) == 2
    assert "--verbose goes with --version" in capsys.readouterr().err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from peftadvisor.cli.main import main; main(['doctor']); "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
