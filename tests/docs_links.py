"""Links of Markdown pages: to pages, headings, files and addresses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FENCED = re.compile(r"^( *)(```|~~~).*?^\1\2[^\n]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\))?)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def links(text: str) -> list[str]:
    """Targets of all links and images outside of code."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCED.sub("", text))
    return [match[1] for match in _LINK.finditer(prose)]


def anchors(text: str) -> set[str]:
    """Ids that Markdown's table of contents gives to the headings."""
    found: set[str] = set()
    for match in _HEADING.finditer(_FENCED.sub("", text)):
        slug, number = _slug(match[1]), 0
        while (unique := f"{slug}_{number}" if number else slug) in found:
            number += 1
        found.add(unique)
    return found


def _slug(heading: str) -> str:
    plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore")
    words = re.sub(r"[^\w\s-]", "", plain.decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def broken(page: Path, within: Path) -> Iterator[str]:
    """What each bad link of a page is, in words; files must lie within a folder."""
    for target in links(page.read_text(encoding="utf-8")):
        parts = urlsplit(target)
        if parts.scheme:
            if parts.scheme != "https" or "." not in parts.netloc:
                yield f"{target}: no address"
            continue
        path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not path.exists():
            yield f"{target}: no such file"
        elif not path.is_relative_to(within):
            yield f"{target}: outside of {within.name}"
        elif parts.fragment and parts.fragment not in anchors(path.read_text(encoding="utf-8")):
            yield f"{target}: no such heading"
