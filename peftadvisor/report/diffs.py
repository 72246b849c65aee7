"""Unified diffs, read back: which lines go, and what comes in their stead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_HEAD = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Lines ``first`` to ``last`` of the old text, counted from 1, and the text that they become.

    The line break at the end of the last line stays, so ``text`` ends without one.
    """

    first: int
    last: int
    text: str


def hunks(diff: str) -> tuple[Hunk, ...]:
    """All hunks of a file's diff; none where one of them only adds, or is not understood."""
    lines = diff.split("\n")
    heads = [(at, head) for at, line in enumerate(lines) if (head := _HEAD.match(line))]
    ends = [at for at, _ in heads[1:]] + [len(lines)]
    found = [_hunk(head, lines[at + 1 : end]) for (at, head), end in zip(heads, ends, strict=True)]
    return tuple(hunk for hunk in found if hunk) if all(found) else ()


def _hunk(head: re.Match[str], lines: Sequence[str]) -> Hunk | None:
    """A hunk whose head and lines agree, and that leaves or takes a line on both sides."""
    first, old, new = int(head[1]), int(head[2] or 1), int(head[4] or 1)
    body = [line for line in lines if line]
    kept = [line[1:] for line in body if line[0] in " +"]
    gone = [line for line in body if line[0] in " -"]
    if not (len(gone) == old > 0 and len(kept) == new > 0):
        return None
    return Hunk(first=first, last=first + old - 1, text="\n".join(kept).removesuffix("\r"))
