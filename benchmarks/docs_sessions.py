"""The commands in README.md and docs: found, run as in a light install, and their output compared.

A fenced block of ``sh``, ``bash``, ``console`` or ``text`` holds commands: lines that begin with
``peftadvisor`` (or ``$ peftadvisor``), also behind ``&&``. Comments before a block say more::

    <!-- file: configs/sft.yaml -->      the block is that file, for the commands of this page
    <!-- exits: 3 -->                    its commands end with this code
    <!-- not run: needs a GPU -->        why its commands are not run
    <!-- with: torch -->                 they record, which takes the real libraries
    <!-- copy: tests/a.csv as b.csv -->  that file of the repository is there, under this name

In a ``console`` block the lines after a command are what it prints, 80 columns wide; a line
``[...]`` stands for any number of lines.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "peftadvisor"
CUT = "[...]"
WIDTH = 80
_SHELLS = ("sh", "bash", "console", "text")
_FENCE = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^\1```[^\n]*$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- (file|exits|not run|with|copy): (.+?) -->\s*\Z")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page: where its body lies, its language, and the marks before it."""

    start: int
    end: int
    language: str
    body: str
    marks: dict[str, str]

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of every command of ours in it."""
        return [] if self.language not in _SHELLS else list(commands(self.body))

    @property
    def code(self) -> int:
        """The exit code that its commands must have."""
        return int(self.marks.get("exits", "0"))

    @property
    def light(self) -> bool:
        """Whether its commands do without torch."""
        return "with" not in self.marks

    @property
    def unrun(self) -> str:
        """Why its commands are not run, if they are not."""
        return self.marks.get("not run", "")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


def pages() -> list[Path]:
    """README.md and every page of docs but the examples.

    Each example is one long answer, recorded and printed by ``update_examples.py`` in minutes.
    """
    docs = ROOT / "docs"
    return [
        ROOT / "README.md",
        *(path for path in sorted(docs.rglob("*.md")) if path.parent != docs / "examples"),
    ]


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(text):
        marks, before = {}, text[: match.start()]
        while mark := _MARK.search(before):
            marks[mark[1]] = mark[2]
            before = before[: mark.start()]
        indent = match[1]
        body = "".join(line.removeprefix(indent) for line in match[3].splitlines(keepends=True))
        found.append(Block(match.start(3), match.end(3), match[2], body, marks))
    return found


def commands(body: str) -> Iterator[list[str]]:
    """The arguments of every command of ours in a shell's text."""
    for line in body.replace("\\\n", " ").splitlines():
        for part in line.removeprefix("$ ").split("&&"):
            words = shlex.split(part, comments=True) if part.split()[:1] == [PROGRAM] else []
            if words:
                yield words[1:]


def put_files(text: str, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in blocks(text):
        if "file" in block.marks:
            path = folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
        if "copy" in block.marks:
            source, _, name = block.marks["copy"].partition(" as ")
            path = folder / (name or source)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, path)


def run(arguments: list[str], folder: Path, *, light: bool = True) -> Ran:
    """Run a command in a folder; light is as where torch is not installed."""
    from peftadvisor.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    home = {"HOME": str(folder / "home"), "COLUMNS": str(WIDTH), "LINES": "24", "NO_COLOR": "1"}
    cleared = ("XDG_CACHE_HOME", "XDG_DATA_HOME", "PEFTADVISOR_STORE", "PYTORCH_ALLOC_CONF")
    with (
        patch.dict(os.environ, {**home, "HF_HUB_OFFLINE": "1"}),
        patch("peftadvisor.simulator.obtain.find_spec", _nothing if light else find_spec),
        chdir(folder),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name in cleared:
            os.environ.pop(name, None)
        code = main(arguments)
    return Ran(code, out.getvalue(), err.getvalue())


def _nothing(_: str) -> None:
    """What is found of a library in a light install."""


def sessions(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the lines that follow it."""
    for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE):
        if part.strip():
            command, printed = _split(part)
            yield command, printed


def _split(part: str) -> tuple[str, str]:
    match = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n", part)
    assert match is not None
    return match[0], part[match.end() :]


def agrees(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, but for what ``[...]`` stands for."""
    pieces = [re.escape(piece) for piece in _lines(shown).split(f"{CUT}\n")]
    return re.fullmatch(r"(?:.*\n)*".join(pieces), _lines(printed)) is not None


def renewed(shown: str, printed: str) -> str:
    """What a page is to show now: of a cut text the lines that begin with the same words."""
    if CUT not in shown:
        return _lines(printed)
    by_word = {line.split()[0]: line for line in reversed(printed.splitlines()) if line.split()}
    kept = shown.strip("\n").splitlines()
    return "".join(f"{by_word.get(line.partition(' ')[0], line)}\n" for line in kept)


def _lines(text: str) -> str:
    """Without blanks at the ends of lines, nor empty lines at the ends."""
    kept = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n")
    return f"{kept}\n" if kept else ""
