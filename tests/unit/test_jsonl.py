"""Lines of a JSONL file: plain, gzipped, and every way they can be bad."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from peftadvisor.data.jsonl import MAX_LINE_BYTES, read_objects
from peftadvisor.errors import UsageError

ROWS = [{"text": "a"}, {"text": "ü", "n": 1}]
LINES = b"\xef\xbb\xbf" + b"\n\n".join(json.dumps(row).encode() for row in ROWS)


def read(path: Path) -> list[tuple[int, dict[str, object]]]:
    return list(read_objects(str(path), "--dataset"))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json"])
def test_lines_are_numbered_and_blank_ones_passed_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(LINES, mtime=0) if name.endswith("gz") else LINES)
    assert read(path) == [(1, ROWS[0]), (3, ROWS[1])]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "no_suffix"
    path.write_bytes(gzip.compress(LINES, mtime=0))
    assert len(read(path)) == 2


def complaint(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PACKED = gzip.compress(b'{"text": "a"}\n' * 5000, mtime=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PACKED[: len(PACKED) // 2], "--dataset {path} is a gzip file cut short; fetch it again"),
        (PACKED[:12] + b"\xff" * 40, "--dataset {path} cannot be read (damaged gzip data)"),
        (b"\x1f\x8b\xff" + bytes(40), "--dataset {path} cannot be read (damaged gzip data)"),
        (b'{"text": "a"}\nPAR1\x15\x04\x80', "{path}, line 2 is not UTF-8 text"),
        (b"\x00\x01\x02\x03", "{path}, line 1 is not JSON"),
        (b"[\n  {", "{path}, line 1 starts a JSON list; give one object per line: jq -c '.[]'"),
        (b'[{"text": "a"}]', "{path}, line 1 starts a JSON list"),
        (b'{\n  "text": "a"\n}', "{path}, line 1 is not JSON (Expecting property name"),
        (b"text,label\n", "{path}, line 1 is not JSON (Expecting value)"),
        (b"7", "{path}, line 1 holds no JSON object"),
        (b"x" * (MAX_LINE_BYTES + 1), "{path}, line 1 is longer than 4 MiB"),
        (gzip.compress(bytes(MAX_LINE_BYTES + 1), mtime=0), "{path}, line 1 is longer than 4 MiB"),
    ],
)
def test_bad_files(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    assert said.format(path=path) in complaint(path)


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    assert "is not a regular file; it takes a JSONL file" in complaint(tmp_path)
    assert "does not exist" in complaint(tmp_path / "none.jsonl")
    assert "File name too long" in complaint(tmp_path / ("x" * 300))
    assert "--dataset with?null" in complaint(Path("with\0null"))


def test_an_error_paints_no_terminal(tmp_path: Path) -> None:
    assert "none?[2J.jsonl does not exist" in complaint(tmp_path / "none\x1b[2J.jsonl")
