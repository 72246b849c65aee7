"""Measurement rows: cells become typed values, and whatever is wrong is named with its place."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from peftadvisor.data.measurements import Measurement, chosen, read_measurements
from peftadvisor.errors import UsageError

ROWS = Path(__file__).parent.parent / "measured_rows.csv"
REMEDY = "give a CSV file in the columns that 'peftadvisor profile export' writes"


def changed(tmp_path: Path, column: str, text: str) -> Path:
    """The rows with one cell of the second row (line 3) changed."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[1][column] = text
    path = tmp_path / "changed.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_cells_are_typed_and_blanks_are_silence() -> None:
    row = read_measurements(ROWS)[0]
    assert (row.row_id, row.micro_batch_size, row.throughput) == ("peft_metamath-00151", 4, 7173.82)
    assert row.method_config["target_modules"] == ["v_proj", "q_proj"]
    assert (row.nvidia_smi_bytes, row.offload) == (None, "")


def test_an_expression_that_nobody_evaluated_is_silence(tmp_path: Path) -> None:
    assert read_measurements(changed(tmp_path, "grad_accum", "$(expr"))[1].grad_accum is None


def test_a_mark_of_the_byte_order_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes(b"\xef\xbb\xbf" + ROWS.read_bytes())
    assert read_measurements(path) == read_measurements(ROWS)


@pytest.mark.parametrize(
    ("column", "text", "complaint"),
    [
        ("peak_memory_bytes", "20 GB", "'20 GB'; it must be a positive whole number"),
        ("micro_batch_size", "-4", "'-4'; it must be a positive whole number"),
        ("throughput", "fast", "'fast'; it must be a positive number"),
        ("throughput", "nan", "'nan'; it must be a positive number"),
        ("method_config", "r=8", "'r=8'; it must be a JSON object"),
        ("method_config", "[1]", "'[1]'; it must be a JSON object"),
        ("method_config", "[" * 100_000, "it must be a JSON object"),
    ],
)
def test_bad_cells(tmp_path: Path, column: str, text: str, complaint: str) -> None:
    path = changed(tmp_path, column, text)
    with pytest.raises(UsageError) as caught:
        read_measurements(path)
    assert str(caught.value).startswith(f"{path}, line 3: column '{column}' is '")
    if len(text) < 200:
        assert complaint in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"row_id,source_id\n", "is empty"),
        (b"row_id,source_id\na,b\n", "lacks the column 'superseded'"),
        (b"\x7fELF\x02\xff\xfe\x00" * 99, "is not a CSV text file"),
        (b'a,"b\n', "is not a CSV text file"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_measurements(path)
    assert str(caught.value) == f"{path} {complaint}; {REMEDY}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.csv", "No such file or directory"), (".", "Is a directory"), ("a\0b", "bad path")],
)
def test_paths_that_cannot_be_read(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"cannot be read \({reason}\); give a CSV file"):
        read_measurements(tmp_path / name)


def test_rows_are_chosen_by_source_and_fidelity() -> None:
    rows = read_measurements(ROWS)
    assert chosen(rows, (), ()) == rows
    assert {row.source_id for row in chosen(rows, ("peft_metamath",), ("A", "B"))} == {
        "peft_metamath"
    }
    assert len(chosen(rows, (), ("A",))) == 11
    with pytest.raises(UsageError, match=r"no row is of nobody, A; .*: a \(-\), b \(C\)$"):
        chosen(
            (
                Measurement(row_id="1", source_id="a"),
                Measurement(row_id="2", source_id="b", fidelity="C"),
            ),
            ("nobody",),
            ("A",),
        )
