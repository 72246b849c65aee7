"""Unified diffs, read back: which lines go, and what comes in their stead."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEAD = re.compile(r"-(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


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
    found = [_hunk(*part.split("\n")) for part in diff.split("\n@@ ")[1:]]
    return tuple(hunk for hunk in found if hunk) if all(found) else ()


def _hunk(head: str, *lines: str) -> Hunk | None:
    """A hunk whose head and lines agree, and that leaves or takes a line on both sides."""
    counted = _HEAD.match(head)
    if counted is None:
        return None
    first, old, new = int(counted[1]), int(counted[2] or 1), int(counted[3] or 1)
    gone = [line for line in lines if line[:1] in (" ", "-")]
    kept = [line[1:] for line in lines if line[:1] in (" ", "+")]
    if not (len(gone) == old > 0 and len(kept) == new > 0):
        return None
    return Hunk(first=first, last=first + old - 1, text="\n".join(kept).removesuffix("\r"))
