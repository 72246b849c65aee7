"""``peftadvisor validate``: from rows to statistics, what leaves rows out, and bad files."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.cli.main import main
from peftadvisor.integrations import validation
from peftadvisor.profiles import Estimate
from peftadvisor.specs import RunSpec
from peftadvisor.units import GIB

ROWS = Path(__file__).parent.parent / "measured_rows.csv"
Answer = Callable[[RunSpec], Estimate | str]


@pytest.fixture
def predicted(estimate: Estimate, monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Every run is predicted to be the synthetic one, but Mixtral is refused; gives the runs."""
    asked: list[RunSpec] = []

    def predict_each(runs: Iterable[RunSpec], progress: Any) -> dict[RunSpec, Estimate | str]:
        asked.extend(runs)
        progress("Predicting")
        return {
            run: "no recording"
            if "Mixtral" in run.model.id
            else dataclasses.replace(estimate, run=run)
            for run in asked
        }

    monkeypatch.setattr(validation, "predict_each", predict_each)
    return asked


def answered(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["validate", *arguments, "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    data: dict[str, Any] = json.loads(printed.out)
    return data


def test_every_row_is_used_or_left_out(
    predicted: list[RunSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    data = answered(capsys, str(ROWS))
    overall = data["groups"][0]
    assert overall["rows"] == {
        "used": 11,
        "skipped": 4,
        "reasons": {
            "no recording": 1,
            "status is neither ok nor out of memory": 1,
            "weights_dtype is not stated": 1,
            "micro_batch_size is not stated": 1,
        },
    }
    assert {(group["by"], group["name"]) for group in data["groups"]} >= {
        ("source", "fms_acceleration"),
        ("method", "qlora"),
        ("gpu", "l40s"),
    }
    assert (data["file"], data["rows"]) == (str(ROWS), [])


def test_a_row_beside_its_prediction(
    predicted: list[RunSpec], estimate: Estimate, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {row["row_id"]: row for row in answered(capsys, str(ROWS), "--rows")["rows"]}
    assert len(rows) == 15
    lora, boft = rows["peft_metamath-00151"], rows["peft_metamath-00124"]
    memory = estimate.memory
    peak = memory.reserved_peak_bytes
    # The interval is the device's, moved down by what the device holds beyond the reserved peak.
    above = memory.device_peak_bytes - peak
    assert lora["compared"]["reserved"] == {
        "measured": 22292725760,
        "low": memory.low_bytes - above,
        "predicted": peak,
        "high": memory.high_bytes - above,
        "error": peak / 22292725760 - 1,
    }
    assert lora["compared"]["step"]["predicted"] == estimate.time.step_s
    # PEFT left 2 · 28 matrices of 3072² fp32 numbers on the CPU.
    assert boft["compared"]["reserved"]["predicted"] == peak - 2 * 28 * 3072**2 * 4
    assert set(rows["peftadvisor-1"]["compared"]) == {"allocated", "reserved", "device", "step"}
    assert rows["fms_acceleration-00812"]["skipped"] == "no recording"
    # 16 tokens beyond 209.9 at most: the mean batch is timed, the longest one is held in memory.
    lengths = {run.training.seq_len for run in predicted if run.gpu.id == "l40s"}
    assert lengths == {224, 672, 256}


def test_filters(predicted: list[RunSpec], capsys: pytest.CaptureFixture[str]) -> None:
    data = answered(capsys, str(ROWS), "--source", "peft_metamath", "--source", "github_issues")
    assert data["groups"][0]["rows"]["used"] == 2
    assert data["groups"][0]["rows"]["skipped"] == 1
    assert answered(capsys, str(ROWS), "--fidelity", "A")["groups"][0]["rows"]["used"] == 10


def test_text_goes_to_a_file(
    predicted: list[RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.txt"
    assert main(["validate", str(ROWS), "--rows", "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    text = out.read_text(encoding="utf-8")
    assert "11 of 15 rows used, 4 left out" in " ".join(text.split())
    assert "peft_metamath-00151" in text


def test_a_page_holds_every_row(
    predicted: list[RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["validate", str(ROWS), "--format", "html", "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "11 of 15 rows used, 4 left out." in page
    assert "peft_metamath-00151" in page


def test_other_commands_offer_no_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "gpus", "--format", "html"]) == 2
    assert "'html' is not one of 'text', 'json'" in capsys.readouterr().err


def changed(tmp_path: Path, column: str, text: str) -> str:
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = text
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def without(tmp_path: Path, column: str) -> str:
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [c for c in rows[0] if c != column], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def holding(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: str(folder / "gone.csv"), "cannot be read (No such file or directory)"),
        (lambda folder: str(folder), "cannot be read (Is a directory)"),
        (lambda folder: shutil.copy("/bin/true", folder / "rows.csv"), "is not a CSV text file"),
        (lambda folder: holding(folder, b""), "is empty"),
        (lambda folder: holding(folder, b"\n\n"), "is empty"),
        (lambda folder: without(folder, "model"), "lacks the column 'model'"),
        (lambda folder: without(folder, "status"), "lacks the column 'status'"),
        (
            lambda folder: changed(folder, "seq_len", "long"),
            "line 2: column 'seq_len' is 'long'; it must be a positive whole number",
        ),
        (
            lambda folder: changed(folder, "method_config", "{"),
            "line 2: column 'method_config' is '{'; it must be a JSON object",
        ),
    ],
)
def test_bad_files(
    make: Callable[[Path], Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", str(make(tmp_path))]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("peftadvisor: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'FILE.csv'"),
        ((str(ROWS), "--fidelity", "D"), "'D' is not one of 'A', 'B', 'C'"),
        ((str(ROWS), "--source", "nobody"), "no row is of nobody; the file has the sources"),
        ((str(ROWS), "--out", "/nowhere/x"), "/nowhere is no directory"),
    ],
)
def test_bad_options(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err


def test_bundled_models_are_predicted_in_earnest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three rows of one recording on file: two are the same run, one ran out of memory."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file))
    row = {
        **dict.fromkeys(columns, ""),
        **{"row_id": "1", "model": "meta-llama/Llama-3.2-3B", "method": "full", "gpu": "l40s"},
        **{"micro_batch_size": "4", "grad_accum": "1", "seq_len": "672", "status": "ok"},
        **{"padding_packing": "packed", "weights_dtype": "bf16", "compute_dtype": "bf16"},
        **{"quantization": "none", "optimizer": "adamw", "gradient_checkpointing": "none"},
        **{"peak_reserved_bytes": str(36 * GIB)},
    }
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerow(row)
        writer.writerow({**row, "row_id": "2", "gpu": "NVIDIA L40S"})
        writer.writerow({**row, "row_id": "3", "status": "oom", "micro_batch_size": "64"})
    first, second, third = answered(capsys, str(path), "--rows")["rows"]
    assert first["compared"] == second["compared"]
    assert abs(first["compared"]["reserved"]["error"]) < 0.05
    assert (third["ran_out"], third["verdict"], third["compared"]) == (True, "oom", {})
