"""rich, turned to strings: one page that parts are added to."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from rich.table import Table


class Canvas:
    """A page of fixed width; what is added is laid out at once."""

    def __init__(self, width: int, color: bool) -> None:
        """An empty page."""
        self._color = color
        self._file = StringIO()
        self._console = Console(
            file=self._file,
            width=width,
            color_system="256" if color else None,
            force_terminal=color,
            no_color=not color,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )

    def add(self, *parts: Any) -> None:
        """Print texts and tables one below the other."""
        for part in parts:
            self._console.print(part)

    def gap(self) -> None:
        """An empty line."""
        self._console.print()

    def section(self, title: str, *parts: Any) -> None:
        """An empty line, a title, and parts below it."""
        self.gap()
        self.add(Text(title, style="bold"), *parts)

    def text(self) -> str:
        """The page so far; without colour no line ends in blanks."""
        text = self._file.getvalue()
        if self._color:
            return text
        return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def column(table: Table, head: str, *, right: bool = False, grow: bool = False) -> None:
    """Add a column: numbers to the right and never wrapped, texts to the left."""
    table.add_column(head, justify="right" if right else "left", no_wrap=not grow, overflow="fold")


def plain(text: str) -> str:
    """Text from outside without control characters, which could repaint a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
