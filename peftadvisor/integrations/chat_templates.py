"""Conversations written out as a tokenizer's own chat template writes them, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.record_shapes import Talked

_FILE = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A compiled template, and the special tokens that it may name."""

    compiled: Any = field(repr=False)
    tokens: Mapping[str, str]

    def write(self, talk: Talked) -> str:
        """The conversation as the model is to read it.

        Raises:
            ValueError: the template refuses it; the message says why.
        """
        try:
            text: str = self.compiled.render(
                messages=[dict(message) for message in talk.messages],
                tools=talk.tools,
                add_generation_prompt=False,
                **self.tokens,
            )
        except Exception as error:  # a template can fail in any way that Python code can
            raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None
        return text


def template_source(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The text of the template that is kept beside a tokenizer, None where there is none.

    In a file of its own, or in ``tokenizer_config.json``: as a text, or as several with names, of
    which the default counts.

    Raises:
        UsageError: the file cannot be read.
    """
    file = folder / _FILE
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise UsageError(
                f"{one_line(str(file))} is no readable text; mend it, or take it out"
            ) from None
    kept = config.get("chat_template")
    if isinstance(kept, list):
        named = [entry for entry in kept if isinstance(entry, dict)]
        kept = {entry.get("name"): entry.get("template") for entry in named}.get("default")
    return kept if isinstance(kept, str) else None


def compile_template(source: str, tokens: Mapping[str, str], shown: str) -> ChatTemplate | None:
    """The template ready for use, None where jinja2 is not installed.

    Raises:
        UsageError: it is no template.
    """
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _generation_extension()],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return ChatTemplate(environment.from_string(source), tokens)
    except TemplateError as error:
        why = one_line(" ".join(str(error).split()))
        raise UsageError(
            f"the chat template of {shown} cannot be read ({why}); mend it, or take it out"
        ) from None


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """Plain JSON: jinja2's own filter escapes what HTML does not like."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _generation_extension() -> type[Any]:
    """Templates may mark what the assistant says as ``generation``; it is written as it stands."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    return Generation
