"""Reports as Markdown, for pull requests and model cards: the tables and sentences of the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.answers import Story
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import story, validation_page
from peftadvisor.report.blocks import Document, Section, Table, Tiles
from peftadvisor.report.canvas import plain
from peftadvisor.report.grid import Grid
from peftadvisor.report.values import Page, Value

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$])|^([-+=]|\d+(?=[.)]))")
"""What means something in GitHub's Markdown, anywhere or at the beginning of a line."""
_MOODS = {"fits": "✔ ", "tight": "! ", "oom": "✘ ", "plain": ""}


def render(value: Value, page: Page) -> str:
    """The report as Markdown.

    Raises:
        UsageError: there is no report of this kind of value.
    """
    shown = value.answer if isinstance(value, Story) else value
    if isinstance(shown, Validation):
        return _joined(_validation(shown))
    if not isinstance(value, Story):
        raise UsageError(f"there is no Markdown of {type(value).__name__}; use --format json")
    return _joined(_document(story.document(value)))


def text(words: str) -> str:
    """Words of any origin as Markdown that shows them as they are."""
    return _SPECIAL.sub(_escaped, plain(words))


def _escaped(found: re.Match[str]) -> str:
    sign: str = found[0]
    return f"{sign}&#46;" if sign.isdigit() else f"\\{sign}"


def _document(document: Document) -> Iterable[str]:
    yield f"# {text(document.title)}"
    yield f"**{_MOODS[document.mood]}{text(document.answer)}**"
    yield text(document.lead)
    for section in document.sections:
        parts = [part for part in _section(section) if part]
        if parts:
            yield f"## {text(section.title)}"
            yield from parts


def _section(section: Section) -> Iterable[str]:
    if not any(block.kind in _BLOCKS for block in section.blocks):
        return
    yield text(section.lead)
    for block in section.blocks:
        if block.kind in _BLOCKS:
            yield _BLOCKS[block.kind](block)


def _tiles(block: Tiles) -> str:
    return "\n".join(f"- {text(n)}: **{text(v)}** {text(note)}" for n, v, note in block.entries)


def _table(block: Table) -> str:
    if not block.folded:
        return grid(block.grid)
    summary = f"<details><summary>{text(block.grid.caption)}</summary>"
    return f"{summary}\n\n{grid(block.grid)}\n\n</details>"


def grid(table: Grid) -> str:
    """A table; the names of groups stand in rows of their own."""
    heads = [text(column.head) for column in table.columns]
    rules = ["--:" if column.numeric else ":--" for column in table.columns]
    lines = [heads, rules]
    for section in table.sections:
        if section.name:
            lines.append([f"**{text(section.name)}**", *[""] * (len(heads) - 1)])
        lines += [[text(cell) for cell in row] for row in section.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _validation(validation: Validation) -> Iterable[str]:
    parts = validation_page.parts(validation)
    yield f"# {text(parts['title'])}"
    yield f"{text(validation.file)}: {parts['used']} rows used, {parts['skipped']} left out"
    for one in (parts["overall"], parts["verdicts"], *parts["groups"], parts["reasons"]):
        if any(section.rows for section in one.sections):
            yield f"## {text(one.caption)}"
            yield grid(one)


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


_BLOCKS: Mapping[str, Callable[[Any], str]] = {
    "tiles": _tiles,
    "table": _table,
    "remarks": lambda block: "\n".join(f"- {text(line)}" for line in block.lines),
    "terms": lambda block: "\n".join(f"- {text(n)}: {text(said)}" for n, said in block.entries),
}
"""What is told of each kind of block; figures and controls are for the page alone."""
