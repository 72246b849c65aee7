"""``peftadvisor profile`` on a small Llama: both engines, refusals, and children that die."""

from __future__ import annotations

import csv
import io
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from peftadvisor.cli.main import main  # noqa: E402
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from tests.fake_cuda import fake_bench  # noqa: E402

SMALL = ("--seq-len", "32", "--dtype", "fp32", "--steps", "2")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFTADVISOR_STORE", str(tmp_path / "profiles.db"))
    return tmp_path / "profiles.db"


@pytest.fixture
def llama(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS["llama"]))
    return str(path)


def test_both_engines_agree(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    assert main(["profile", "--model", llama, "--method", "lora", *SMALL, "--format", "json"]) == 0
    simulated, measured = json.loads(capsys.readouterr().out)["profiles"]
    assert (simulated["engine"], measured["engine"]) == ("simulate", "measure")
    assert simulated["parameters"] == measured["parameters"]
    assert simulated["phase_flops"] == measured["phase_flops"]
    peaks = [run["memory"]["allocated_peak_bytes"] for run in (simulated, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.001)
    assert simulated["time"] is None
    assert measured["time"]["steps"] == 2
    assert threading.active_count() == before
    assert main(["profile", "export"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert int(row["peak_memory_bytes"]) == peaks[1]
    assert (row["status"], row["method"], row["gpu"]) == ("ok", "lora", "cpu")
    assert json.loads(row["versions"])["torch"]


def test_text_is_a_row_for_each_fact(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["profile", "--model", llama, "--method", "ia3", *SMALL, "--engine", "simulate"]) == 0
    )
    out = capsys.readouterr().out
    trained = next(line for line in out.splitlines() if line.startswith("trained"))
    assert trained.split() == ["trained", "448"]
    assert "  in backward" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--method", "bitfit"), "no bias in its linear layers"),
        (("--method", "lora", "--device", "cuda:0"), "--device cuda:0: no NVIDIA driver here"),
        (("--method", "lora", "--steps", "0"), "no whole number from 1"),
        (("--method", "qlora", "--engine", "measure"), "use --engine simulate"),
        (
            ("--method", "lora", "--snapshot", "x"),
            "--snapshot is of a GPU's allocator, not of cpu; use --device cuda:N",
        ),
        (
            ("--method", "lora", "--snapshot", "x", "--device", "a100-40g"),
            "not of a100-40g; use --device cuda:N",
        ),
        (
            ("--method", "lora", "--snapshot", "x", "--device", "cuda:0", "--engine", "simulate"),
            "--snapshot is for measured runs; use --engine measure or both",
        ),
        (
            ("--method", "lora", "--snapshot", "/", "--device", "cuda:0"),
            "--snapshot / is a directory; choose another path",
        ),
        (
            ("--method", "lora", "--snapshot", "/none/x", "--device", "cuda:0"),
            "--snapshot /none/x cannot be made: /none is no directory; choose another path",
        ),
    ],
)
def test_refusals_are_one_line(
    llama: str, arguments: Any, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "--model", llama, *arguments, "--seq-len", "32"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("peftadvisor: error: ")
    assert complaint in error


def test_a_snapshot_is_written_where_it_was_asked_for(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("peftadvisor.profilers.devices.open_bench", fake_bench)
    snapshot = tmp_path / "run.pickle"
    where = ("--engine", "measure", "--device", "cuda:0", "--snapshot", str(snapshot))
    arguments = ["--model", llama, "--method", "lora", *SMALL, *where]
    assert main(["profile", *arguments, "--format", "json"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)["profiles"]
    assert len(measured["timeline"]["at"]) == 4
    assert len(pickle.loads(snapshot.read_bytes())["device_traces"]) == 2


def test_runs_are_kept_and_shown(llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    simulate = ["profile", "--model", llama, "--engine", "simulate", *SMALL]
    assert main([*simulate, "--method", "lora"]) == 0
    assert main([*simulate, "--method", "full", "--no-store"]) == 0
    capsys.readouterr()
    assert main(["profile", "list", "--format", "json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["id"], run["status"], run["method"]) == (1, "done", "lora")
    assert main(["profile", "show", "1"]) == 0
    assert "run 1: lora on" in capsys.readouterr().out
    assert main(["profile", "show", "2"]) == 2
    assert "no run has the number 2" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["list", "export"])
def test_no_store_yet(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", command]) == 2
    assert "there is no store at" in capsys.readouterr().err


def test_a_bad_store_is_found_before_the_work(
    llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--method", "lora", *SMALL, "--store", str(tmp_path)]
    assert main(["profile", "--model", llama, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert "cannot be used" in error
    assert "\n" not in error


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--method", "lora"]) == 2
    assert "--model is missing" in capsys.readouterr().err
