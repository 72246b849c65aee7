"""Values as pages of their own: one file, nothing fetched, no script but those of the templates.

Everything that is not of the template is escaped. A page states the hashes of its scripts, so that
a browser runs no other. The only module that imports jinja2.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from peftadvisor.errors import UsageError
from peftadvisor.integrations.answers import Story
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import story, validation_page
from peftadvisor.report.blocks import Controls, Document
from peftadvisor.report.canvas import plain
from peftadvisor.report.drawing import Drawing, at
from peftadvisor.report.values import Page, Value

TEMPLATES = Path(__file__).parent / "templates"

_SCRIPTS = ("report.js", "allocator.js", "what_if.js")
"""The first is of every report, the others of those with a what-if."""


def render(value: Value, page: Page) -> str:
    """The value as a page.

    Raises:
        UsageError: there is no page for this kind of value.
    """
    shown = value.answer if isinstance(value, Story) else value
    if isinstance(shown, Validation):
        return _filled("validation.html", validation_page.parts(shown))
    if not isinstance(value, Story):
        raise UsageError(f"there is no HTML page of {type(value).__name__}; use --format json")
    return _filled("report.html", _parts(story.document(value)))


def _parts(document: Document) -> Mapping[str, Any]:
    blocks = [block for section in document.sections for block in section.blocks]
    controls = next((block for block in blocks if isinstance(block, Controls)), None)
    names = _SCRIPTS if controls else _SCRIPTS[:1]
    scripts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in names]
    return {
        "title": plain(document.title),
        "page": document,
        "carried": controls and controls.data,
        "scripts": [Markup(script) for script in scripts],
        "hashes": [_hash(script) for script in scripts],
    }


def _hash(script: str) -> str:
    """What a browser compares a script with before it runs it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _filled(template: str, parts: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(parts, made_by=_made_by())


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
    environment.filters.update(plain=plain, at=at)
    return environment


def _made_by() -> str:
    return f"peftadvisor {version('peftadvisor')}"


def picture(drawing: Drawing, css: str) -> str:
    """One figure as a file of its own, with these rules."""
    return _environment().get_template("picture.svg").render(plot=drawing, css=Markup(css))
