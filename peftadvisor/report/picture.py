"""Single figures as SVG with their colours inside, or as PNG where cairosvg is installed."""

from __future__ import annotations

import re
from pathlib import Path

from peftadvisor.errors import UsageError
from peftadvisor.integrations.answers import Story
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import html, story
from peftadvisor.report.drawing import Drawing

_SCALE = 2.0
"""Pixels of a PNG per unit of its drawing."""


def figures(told: Story) -> dict[str, Drawing]:
    """All figures of a report by their names.

    Raises:
        UsageError: the report's figures do not stand alone.
    """
    if isinstance(told.answer, Validation):
        raise UsageError("figures of a validation are in its page alone; leave out --figure")
    found: dict[str, Drawing] = {}
    for section in story.document(told).sections:
        for block in section.blocks:
            drawn = getattr(block, "drawings", ()) or [getattr(block, "drawing", None)]
            found.update({one.key: one for one in drawn if one})
    return found


def write_figure(told: Story, name: str, path: Path) -> None:
    """Write one figure; the ending says whether as SVG or PNG.

    Raises:
        UsageError: no figure has this name, the ending is another, or there is nothing to make a
            PNG with.
    """
    found = figures(told)
    if name not in found:
        raise UsageError(f"no figure is called '{name}' here; there are: {', '.join(found)}")
    drawn = svg(found[name])
    if path.suffix == ".svg":
        path.write_text(drawn, encoding="utf-8")
    elif path.suffix == ".png":
        path.write_bytes(_png(drawn))
    else:
        raise UsageError(f"--out {path} is neither .svg nor .png; choose one of them")


def svg(drawing: Drawing) -> str:
    """A figure that needs no page around it, in the colours of light pages."""
    return html.picture(
        drawing,
        _resolved(
            (html.TEMPLATES / "page.css").read_text(encoding="utf-8")
            + (html.TEMPLATES / "report.css").read_text(encoding="utf-8")
        ),
    )


def _resolved(css: str) -> str:
    """The rules that figures need, with colours in the place of their names."""
    light = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}", "", css)
    named = dict(re.findall(r"(--[\w-]+):\s*([^;]+);", light))
    found = re.findall(r"[^{}]+\{[^{}]*\}", light)
    # not all that draws SVG knows paint-order, and without it the halo of text covers the text
    rules = [rule for rule in found if _FIGURE.search(rule) and "paint-order" not in rule]
    return "".join(re.sub(r"var\((--[\w-]+)\)", lambda m: named[m[1]], rule) for rule in rules)


_FIGURE = re.compile(r"^\s*\.(plot|owner|series|spot|verdict|risk|mark)\b")


def _png(drawn: str) -> bytes:
    try:
        import cairosvg
    except ImportError:
        raise UsageError(
            "a PNG is made by cairosvg, which is not installed: pip install cairosvg, or write "
            "--out FIGURE.svg"
        ) from None
    made: bytes = cairosvg.svg2png(drawn.encode(), scale=_SCALE)
    return made
