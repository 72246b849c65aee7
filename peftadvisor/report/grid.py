"""A table as HTML shows it: caption, heads, and rows below the name of their group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cells = tuple[str, ...]
"""One row; the first cell names it."""


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a column, and whether it holds numbers."""

    head: str
    numeric: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows that belong together; ``name`` and ``note`` stand above them unless they are empty."""

    rows: tuple[Cells, ...]
    name: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table; ``key`` is its place in the page, unique there."""

    key: str
    caption: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]


def plain_grid(key: str, caption: str, heads: Sequence[Column], rows: Sequence[Cells]) -> Grid:
    """A table whose rows are in no groups."""
    sections = (Section(rows=tuple(rows)),)
    return Grid(key=key, caption=caption, columns=tuple(heads), sections=sections)
