"""The reference pages' contents, out of the code: commands, methods, catalogs, Python, JSON."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "tests" / "contract" / "estimate.schema.json"
Row = Iterable[Any]


def table(heads: Iterable[str], rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    names = list(heads)
    lines = [_row(names), _row("---" for _ in names), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Row) -> str:
    texts = ("" if cell is None else str(cell) for cell in cells)
    return "| " + " | ".join(_cell(text) for text in texts) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def commands() -> str:
    """Every command's help, sub-commands included."""
    from peftadvisor.cli.main import cli

    return "\n".join(
        f"{'##' if len(path) < 2 else '###'} {' '.join(('peftadvisor', *path))}\n\n"
        f"```text\n{_help(path)}```\n"
        for path in _paths(cli, ())
    )


def _paths(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from _paths(inner, (*path, name))


def _help(path: tuple[str, ...]) -> str:
    from peftadvisor.cli.main import main

    printed = io.StringIO()
    with patch.dict(os.environ, {"COLUMNS": "80"}), redirect_stdout(printed):
        assert main([*path, "--help"]) == 0
    return printed.getvalue()


def methods() -> str:
    """Every method that ships, by family."""
    from peftadvisor.methods import _FILES, find_method

    found = [find_method(name) for name in _FILES]
    return table(
        ("name", "what is trained", "family", "year", "merges", "source"),
        (
            (
                f"`{method.name}`",
                method.title + (" (cannot be run)" if method.unavailable else ""),
                method.family,
                method.year,
                "yes" if method.mergeable else "no",
                method.citation,
            )
            for method in found
        ),
    )


def listing(kind: str) -> str:
    """A catalog with the columns that ``peftadvisor list`` shows."""
    from peftadvisor.cli.listings import KINDS
    from peftadvisor.report.text import _COLUMNS, _cell

    rows = KINDS[kind]()
    heads = [_COLUMNS.get(name, (name.replace("_", " "), str))[0] for name in rows.columns]
    cells = ([_cell(name, row[name]).plain for name in rows.columns] for row in rows.rows)
    return table(heads, cells)


def recommendations() -> str:
    """What the survey advises, in our words, with where it was seen."""
    from peftadvisor.data.recommendations import load_recommendations

    return table(
        ("", "what it advises", "seen in", "how sure"),
        ((r.id, r.statement, r.source, r.confidence) for r in load_recommendations().values()),
    )


def findings() -> str:
    """What later studies say, for, against and in dispute."""
    from peftadvisor.data.tables import catalog_path, read_table

    columns = ("rule", "kind", "statement", "source", "confidence")
    rows = read_table(catalog_path("evidence_findings.csv"), columns)
    return table(
        ("", "", "what is said", "by whom", "how sure"),
        ([row.text(name) for name in columns] for row in rows),
    )


def python() -> str:
    """What ``import peftadvisor`` offers: signatures, fields, docstrings."""
    import peftadvisor

    return "\n".join(_member(name, getattr(peftadvisor, name)) for name in peftadvisor.__all__)


def _member(name: str, member: Any) -> str:
    words = _words(member)
    if dataclasses.is_dataclass(member):
        fields = dataclasses.fields(member)
        rows = ((f"`{f.name}`", f"`{f.type}`", _default(f)) for f in fields)
        return f"## {name}\n\n{words}\n\n{table(('field', 'type', 'default'), rows)}"
    # annotations are strings, and would be shown in quotes
    shown = re.sub(r"(: |-> )'([^']+)'", r"\1\2", f"{name}{inspect.signature(member)}")
    return f"## {name}\n\n```python\n{shown}\n```\n\n{words}\n"


def _words(member: Any) -> str:
    """A docstring in Markdown: what is raised as a list."""
    text = inspect.cleandoc(member.__doc__ or "").replace("``", "`")
    words, raises, errors = text.partition("Raises:\n")
    items = re.sub(r"^    (\w+): ", r"- `\1`: ", errors, flags=re.MULTILINE)
    return f"{words}{raises}\n{items}" if raises else text


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    factory = field.default_factory
    return "" if factory is dataclasses.MISSING else f"`{factory()!r}`"


def json_fields() -> str:
    """The fields of one estimate, by the schema that tests hold it to."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return table(("field", "value"), ((f"`{name}`", words) for name, words in _fields(schema, "")))


def _fields(schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{at}{name}", _kind(inner)
        yield from _fields(inner, f"{at}{name}.")


def _kind(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f"always {schema['const']}"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(_KINDS[kind] for kind in kinds)
    low, high = schema.get("minimum"), schema.get("maximum")
    if high is not None:
        return f"{words}, {low} to {high}"
    return words if low is None else f"{words}, {low} or more"


_KINDS = {
    "array": "list",
    "boolean": "true or false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "object": "object",
    "string": "text",
}

MAKERS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "findings": findings,
    "gpus": lambda: listing("gpus"),
    "json": json_fields,
    "methods": methods,
    "prices": lambda: listing("prices"),
    "python": python,
    "recommendations": recommendations,
}
"""What stands between the marks ``<!-- made:NAME -->`` and ``<!-- /made:NAME -->`` of a page."""
