"""Values as pages of their own: one file, no script, nothing fetched.

Everything that is not of the template is escaped. The only module that imports jinja2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from peftadvisor.errors import UsageError
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import validation_page
from peftadvisor.report.canvas import plain
from peftadvisor.report.values import Page, Value

TEMPLATES = Path(__file__).parent / "templates"

_PAGES: Mapping[type, tuple[str, Callable[[Any], Mapping[str, Any]]]] = {
    Validation: ("validation.html", validation_page.parts),
}
"""Template of each kind of value, and what it is filled with."""


def render(value: Value, page: Page) -> str:
    """The value as a page.

    Raises:
        UsageError: there is no page for this kind of value.
    """
    if type(value) not in _PAGES:
        raise UsageError(f"there is no HTML page of {type(value).__name__}; use --format json")
    name, parts = _PAGES[type(value)]
    return _environment().get_template(name).render(parts(value), made_by=_made_by())


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plain=plain, at=_at)
    return environment


def _at(coordinate: float) -> str:
    """A place in a drawing, to a tenth."""
    return f"{coordinate:.1f}".removesuffix(".0")


def _made_by() -> str:
    return f"peftadvisor {version('peftadvisor')}"
