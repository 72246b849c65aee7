"""Reading the CSV catalogs: one row type whose cells know which file and line they come from.

Files are found beside this module rather than through ``importlib.resources``, whose import
alone costs 20 ms of a command's start.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError

_CATALOGS = Path(__file__).parent / "catalogs"
_REINSTALL = "reinstall peftadvisor"


def catalog_path(name: str) -> Path:
    """The path of a bundled catalog file such as ``'gpus.csv'``."""
    return _CATALOGS / name


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a catalog; the accessors raise UsageError naming file, line and column."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def error(self, problem: str) -> UsageError:
        """An error about this row, for the caller to raise."""
        return UsageError(f"{one_line(str(self.path))}, line {self.line}: {one_line(problem)}")

    def optional(self, column: str) -> str | None:
        """The text of a cell, None where it is blank."""
        return self.cells[column].strip() or None

    def text(self, column: str) -> str:
        """The text of a cell that must not be blank."""
        value = self.optional(column)
        if value is None:
            raise self.error(f"column '{column}' is blank; fill it in")
        return value

    def optional_number(self, column: str) -> float | None:
        """A positive number (``'3.12e14'``), None where the cell is blank."""
        value = self.optional(column)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            raise self.error(f"column '{column}' is '{value}'; it must be a positive number")
        return number

    def number(self, column: str) -> float:
        """A positive number from a cell that must not be blank."""
        self.text(column)
        number = self.optional_number(column)
        assert number is not None
        return number

    def optional_integer(self, column: str) -> int | None:
        """A positive whole number, None where the cell is blank."""
        value = self.optional(column)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()) or int(value) == 0:
            raise self.error(f"column '{column}' is '{value}'; it must be a positive whole number")
        return int(value)

    def integer(self, column: str) -> int:
        """A positive whole number from a cell that must not be blank."""
        self.text(column)
        number = self.optional_integer(column)
        assert number is not None
        return number


def read_table(path: Path, required: tuple[str, ...], *, remedy: str = _REINSTALL) -> list[Row]:
    """Read a CSV file whose header holds at least the ``required`` columns.

    Raises:
        UsageError: the file is missing, empty, not UTF-8 text, holds no rows, lacks a column,
            or has a line with more or fewer cells than its header; ``remedy`` says what to do.
    """
    name = one_line(str(path))
    lines = _lines(path, name, remedy)
    header = lines[0][1]
    missing = [column for column in required if column not in header]
    if missing:
        raise UsageError(f"{name} lacks the column '{missing[0]}'; {remedy}")
    rows = []
    for number, cells in lines[1:]:
        row = Row(path, number, dict(zip(header, cells, strict=False)))
        if len(cells) != len(header):
            raise row.error(f"{len(cells)} cells where the header has {len(header)}")
        rows.append(row)
    return rows


def _lines(path: Path, name: str, remedy: str) -> list[tuple[int, list[str]]]:
    """The non-blank lines of a CSV file with their numbers: a header and at least one row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(f"{name} is not a CSV text file; {remedy}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise UsageError(f"{name} cannot be read ({reason}); {remedy}") from None
    if len(lines) < 2:
        raise UsageError(f"{name} is empty; {remedy}")
    return lines
