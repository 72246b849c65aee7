"""Bring docs up to date with the code: made tables and help, and what shown commands print.

    python benchmarks/update_docs.py [--check]

Between ``<!-- made:NAME -->`` and ``<!-- /made:NAME -->`` goes what ``docs_reference`` makes; after
a command in a ``console`` block goes what it prints now (``docs_sessions``). ``--check`` writes
nothing and ends with 1 where something is out of date.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.docs_reference import MAKERS  # noqa: E402
from benchmarks.docs_sessions import (  # noqa: E402
    Block,
    blocks,
    commands,
    pages,
    put_files,
    renewed,
    run,
    sessions,
)

_MADE = re.compile(r"(<!-- made:([a-z-]+) -->\n).*?(<!-- /made:\2 -->)", re.DOTALL)


def made(text: str) -> str:
    """The page with all that is made of the code made anew."""
    return _MADE.sub(lambda mark: f"{mark[1]}\n{MAKERS[mark[2]]()}\n{mark[3]}", text)


def told(text: str) -> str:
    """The page with what its commands print now."""
    with tempfile.TemporaryDirectory() as folder:
        put_files(text, Path(folder))
        parts, at = [], 0
        for block in blocks(text):
            parts += [text[at : block.start], _printed(block, Path(folder))]
            at = block.end
        return "".join([*parts, text[at:]])


def _printed(block: Block, folder: Path) -> str:
    """The block as it is to be: shown commands rest on the files of the page alone."""
    if block.language != "console" or block.unrun:
        return block.body
    lines = []
    for command, printed in sessions(block.body):
        (arguments,) = commands(command)
        ran = run(arguments, folder, light=block.light)
        if ran.code != block.code:
            sys.exit(f"{command}ended with {ran.code}, not {block.code}\n{ran.err}")
        lines += [command, renewed(printed, ran.out)]
    return "".join(lines)


def main(options: list[str]) -> int:
    """Rewrite every page, or say which are out of date."""
    stale = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        now = told(made(text))
        if now != text:
            stale.append(path)
            if "--check" not in options:
                path.write_text(now, encoding="utf-8")
    for path in stale:
        print(path.relative_to(ROOT))
    return 1 if stale and "--check" in options else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
