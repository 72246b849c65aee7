"""Calibration files: what is written is read, partial files, broken ones, the newest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.data.calibrations import (
    Calibration,
    Head,
    Probe,
    calibration_path,
    latest_calibration,
    new_calibration,
    read_calibration,
)
from peftadvisor.errors import UsageError
from peftadvisor.units import MIB

HEAD = Head(
    device="NVIDIA L40S",
    device_kind="cuda",
    versions={"torch": "2.13.0"},
    date="2026-11-24T10:15:00+00:00",
    driver="570.86.15",
    facts={"machine": "x86_64"},
)
PROBES = (
    Probe(kind="context", operator="created", held_bytes=430 * MIB),
    Probe(
        kind="matmul",
        operator="linear",
        shape=(4, 5, 6),
        dtype="bf16",
        seconds=2e-6,
        low_s=1e-6,
        high_s=3e-6,
        flops=240,
        moved_bytes=148,
        repeats=30,
    ),
)


def written(path: Path, head: Head = HEAD, probes: tuple[Probe, ...] = PROBES) -> Path:
    with new_calibration(path, head) as file:
        for probe in probes:
            file.add(probe)
        file.skip("dequantize_nf4", "bitsandbytes is not installed")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = read_calibration(written(tmp_path / "new" / "c.jsonl"))
    skipped = {"dequantize_nf4": "bitsandbytes is not installed"}
    assert read == Calibration(head=HEAD, probes=PROBES, skipped=skipped, complete=True)
    assert json.loads(json.dumps(read.to_dict()))["probes"][1]["shape"] == [4, 5, 6]
    assert read.probes[1].flops_per_s == pytest.approx(1.2e8)
    assert read.probes[1].bytes_per_s == pytest.approx(7.4e7)
    assert read.probes[0].flops_per_s is None


def test_an_interrupted_file_is_partial(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"

    def interrupted() -> None:
        with new_calibration(path, HEAD) as file:
            file.add(PROBES[0])
            # on disk before the next one is measured
            assert read_calibration(path).probes == PROBES[:1]
            file.add(PROBES[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_calibration(path) == Calibration(head=HEAD, probes=PROBES, complete=False)
    path.write_text(path.read_text()[:-20])
    assert read_calibration(path) == Calibration(head=HEAD, probes=PROBES[:1], complete=False)


@pytest.mark.parametrize(
    ("line", "change", "complaint"),
    [
        (0, {"format": 2}, "line 1: key 'format' is 2, of a newer peftadvisor (here 1); upgrade"),
        (0, {"format": "1"}, "key 'format' is \"1\", not a whole number"),
        (0, {"device": ""}, "key 'device' is \"\", not a text"),
        (0, {"device": None}, "key 'device' is null, not a text"),
        (0, {"device_kind": "tpu"}, "key 'device_kind' is 'tpu', not cpu or cuda"),
        (0, {"versions": []}, "key 'versions' is [], not an object"),
        (0, {"versions": {"torch": 2}}, "key 'torch' is 2, not a text"),
        (2, {"seconds": -1}, "line 3: key 'seconds' is -1, not a number from 0"),
        (2, {"seconds": float("nan")}, "key 'seconds' is NaN"),
        (2, {"seconds": True}, "key 'seconds' is true"),
        (2, {"shape": [4, 2.5]}, "key 'shape' is [4, 2.5], not a list of whole numbers"),
        (2, {"flops": None}, "key 'flops' is null"),
        (2, {"held_bytes": "1"}, "key 'held_bytes' is \"1\""),
    ],
)
def test_broken_values(line: int, change: Any, complaint: str, tmp_path: Path) -> None:
    path = written(tmp_path / "c.jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    (lines[line] if line == 0 else lines[line]["probe"]).update(change)
    path.write_text("".join(json.dumps(value) + "\n" for value in lines))
    with pytest.raises(UsageError) as caught:
        read_calibration(path)
    text = str(caught.value)
    assert complaint in text
    assert text.startswith(str(path))
    assert text.endswith("run: peftadvisor calibrate")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\n", "cannot be read (not UTF-8 text)"),
        (b"not json\n", "line 1: is no JSON object"),
        (b"[1]\n", "line 1: is no JSON object"),
        (b"{}\n", "line 1: key 'format' is missing"),
        (b"[" * 100_000 + b"\n", "line 1: is no JSON object"),
    ],
)
def test_broken_files(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_calibration(path)
    assert complaint in str(caught.value)


def test_files_that_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(No such file"):
        read_calibration(tmp_path / "none.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written .*; name another by --out"):
        written(tmp_path / "file" / "c.jsonl")


def test_an_unknown_line_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "c.jsonl")
    path.write_text(path.read_text() + '{"surprise": 1}\n')
    with pytest.raises(UsageError, match="line 6: is neither probe, skipped nor end"):
        read_calibration(path)


def test_the_newest_of_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert latest_calibration(HEAD.device) is None
    later = replace(HEAD, date="2026-11-25T00:00:00+00:00")
    path = calibration_path(HEAD)
    assert path == tmp_path / "peftadvisor/calibrations/nvidia-l40s-20261124T101500.jsonl"
    written(calibration_path(later), later)
    written(path)
    nothing = replace(HEAD, date="2026-11-26T00:00:00+00:00")
    written(calibration_path(nothing), nothing, ())
    other = replace(HEAD, device="NVIDIA-L40S", date="2026-11-27T00:00:00+00:00")
    written(calibration_path(other), other)
    found = latest_calibration(HEAD.device)
    assert found is not None
    assert found.head == later
    assert latest_calibration("cpu") is None
