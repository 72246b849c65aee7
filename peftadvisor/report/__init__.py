"""Values to text, JSON and HTML; nothing is computed here, only laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peftadvisor.report.values import Listing, Page, Sheet, Value

__all__ = ["RENDERERS", "Listing", "Page", "Renderer", "Sheet", "Value"]

Renderer = Callable[[Value, Page], str]


def _text(value: Value, page: Page) -> str:
    from peftadvisor.report import text

    return text.render(value, page)


def _json(value: Value, page: Page) -> str:
    from peftadvisor.report import json

    return json.render(value, page)


def _html(value: Value, page: Page) -> str:
    from peftadvisor.report import html

    return html.render(value, page)


RENDERERS: Mapping[str, Renderer] = {"text": _text, "json": _json, "html": _html}
"""How a value becomes a string, by format; each imports what it needs when it is called."""
