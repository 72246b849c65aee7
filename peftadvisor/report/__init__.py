"""Values to text, JSON, HTML and what pipelines read; nothing is computed, only laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from peftadvisor.errors import UsageError
from peftadvisor.report.values import Listing, Page, Sheet, Value

if TYPE_CHECKING:
    from peftadvisor.integrations.checked import Checked

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


def _markdown(value: Value, page: Page) -> str:
    from peftadvisor.report import markdown

    return markdown.render(value, page)


def _junit(value: Value, page: Page) -> str:
    from peftadvisor.report import junit

    return junit.render(_checked(value, "JUnit XML"))


def _github(value: Value, page: Page) -> str:
    from peftadvisor.report import github

    return github.render(_checked(value, "GitHub annotations"))


def _sarif(value: Value, page: Page) -> str:
    from peftadvisor.report import sarif

    return sarif.render(_checked(value, "SARIF"))


def _checked(value: Value, form: str) -> Checked:
    """The value, if it is one that pipelines ask for.

    Raises:
        UsageError: it is another kind of value.
    """
    from peftadvisor.integrations.checked import Checked

    if not isinstance(value, Checked):
        raise UsageError(f"there is no {form} of {type(value).__name__}; use --format json")
    return value


RENDERERS: Mapping[str, Renderer] = {
    "text": _text,
    "json": _json,
    "html": _html,
    "markdown": _markdown,
    "junit": _junit,
    "github": _github,
    "sarif": _sarif,
}
"""How a value becomes a string, by format; each imports what it needs when it is called."""
