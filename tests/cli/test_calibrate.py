"""``peftadvisor calibrate`` on the CPU with hardly any time, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from peftadvisor.cli.calibrate import sheet  # noqa: E402
from peftadvisor.cli.main import main  # noqa: E402
from peftadvisor.data.calibrations import (  # noqa: E402
    Calibration,
    Head,
    Probe,
    latest_calibration,
    read_calibration,
)
from peftadvisor.profilers import child  # noqa: E402
from peftadvisor.report import RENDERERS, Page  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of its own; no thread and no child after a test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before = threading.active_count()
    yield tmp_path / "peftadvisor" / "calibrations"
    assert threading.active_count() == before
    assert multiprocessing.active_children() == []


def test_the_cpu_in_two_seconds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["calibrate", "--device", "cpu", "--seconds", "2", "--format", "json"]
    assert main(asked) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    answer = json.loads(printed.out)
    made = read_calibration(Path(answer["path"]))
    assert made.to_dict() == answer["calibration"]
    assert made == latest_calibration("cpu")
    assert Path(answer["path"]).parent == home
    assert made.complete
    assert made.head.device_kind == "cpu"
    assert {"torch", "python"} <= set(made.head.versions)
    assert made.skipped["context"] == made.skipped["workspace"] == "there is none on the CPU"
    assert {"launch", "dispatch"} <= {probe.kind for probe in made.probes}
    for probe in made.probes:
        assert probe.seconds is not None
        assert probe.low_s is not None
        assert probe.high_s is not None
        assert probe.low_s <= probe.seconds <= probe.high_s
        assert probe.repeats > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--device", "tpu"), "'tpu' is no device to calibrate; --device takes cpu or cuda:N"),
        (("--device", "cuda:x"), "'cuda:x' is no device to calibrate"),
        (("--device", "cuda:99"), "--device cuda:99: "),
        (("--seconds", "0"), "'0' is no number above 0"),
        (("--out", "."), "is a directory"),
        (("--format", "xml"), "'xml' is not one of 'text', 'json'"),
    ],
)
def test_refusals_are_one_line(
    arguments: tuple[str, ...], complaint: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("peftadvisor: error: ")
    assert printed.err.count("\n") == 1
    assert complaint in printed.err
    assert not home.exists()


def test_an_interrupt_says_what_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "in_child", interrupted)
    assert main(["calibrate"]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"peftadvisor: what was measured so far is kept in {home}"
    assert said[-1] == "peftadvisor: error: interrupted"


def timed(kind: str, operator: str, seconds: float, **more: Any) -> Probe:
    return Probe(
        kind=kind, operator=operator, seconds=seconds, low_s=seconds, high_s=seconds, **more
    )


def test_text_is_a_row_for_each_kind_and_dtype() -> None:
    head = Head(device="cpu", device_kind="cpu", versions={"torch": "2"}, date="2026-11-24")
    wide = {"dtype": "bf16", "shape": (64, 32, 16), "flops": 10**12, "moved_bytes": 10**9}
    probes = (
        Probe(kind="context", operator="created", held_bytes=2**20),
        timed("launch", "zero_", 5e-6),
        timed("dispatch", "add", 2e-6),
        timed("dispatch", "linear", 4e-6),
        timed("matmul", "linear", 0.5, **wide),
        timed("matmul", "linear", 0.25, **wide),
        timed("elementwise", "gelu", 0.5, **{**wide, "flops": 0, "shape": (64, 32)}),
    )
    made = Calibration(head=head, probes=probes, skipped={"workspace": "no reason"})
    lines = RENDERERS["text"](sheet(made, "/kept/here"), Page(width=100)).splitlines()
    assert "Skipped  workspace: no reason" in lines
    assert "Saved    /kept/here" in lines
    table = [line.split() for line in lines[lines.index("Rates") + 2 :]]
    assert table == [
        ["context", "–", "1.00", "MiB", "created", "–", "1"],
        ["launch", "–", "5", "µs", "zero_", "–", "1"],
        ["dispatch", "–", "2", "µs", "add", "4", "µs", "2"],
        ["matmul", "bf16", "4", "TFLOP/s", "64", "×", "32", "×", "16", "2", "TFLOP/s", "2"],
        ["elementwise", "bf16", "2", "GB/s", "gelu", "64", "×", "32", "–", "1"],
    ]
