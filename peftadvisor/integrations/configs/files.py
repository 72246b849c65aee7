"""A config file from disk, whoever wrote it: read as plain data or refused in one line.

YAML by PyYAML's safe loader: no tags, no objects. Limits stand below; they are far above any real
config and keep a hostile file from taking time or memory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from peftadvisor.data.config_files import decoded
from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.value import ConfigFile, Language

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
MAX_NODES = 20_000
"""Values in all, those behind aliases counted as often as they appear."""

_REMEDY = "pass a training config of axolotl, LLaMA-Factory, TRL, torchtune or transformers"
_MISREAD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_config_file(path: str | Path) -> ConfigFile:
    """The file's text and values.

    Raises:
        UsageError: no such file, not a regular one, unreadable, over 256 KiB, binary, not YAML or
            JSON, no mapping, or nested or aliased beyond any config.
    """
    shown = one_line(str(path))
    text = decoded(_bytes(Path(path), shown), shown, _REMEDY)
    language: Language = "json" if text.lstrip().startswith("{") else "yaml"
    values = _json(text, shown) if language == "json" else None
    if values is None:
        language, values = "yaml", _yaml(text, shown)
    if not isinstance(values, dict):
        raise UsageError(f"{shown} holds no mapping of keys to values; {_REMEDY}")
    if _beyond(values, MAX_DEPTH, [MAX_NODES]):
        raise UsageError(f"{shown} nests or repeats values beyond any config; {_REMEDY}")
    if not all(isinstance(key, str) for key in values):
        odd = next(key for key in values if not isinstance(key, str))
        raise UsageError(f"{shown} has the key {one_line(repr(odd))}, which is no name; quote it")
    return ConfigFile(path=str(path), text=text, language=language, values=values)


def _bytes(path: Path, shown: str) -> bytes:
    try:
        if not path.exists():
            raise UsageError(f"{shown} does not exist; {_REMEDY}")
        if path.is_dir():
            raise UsageError(f"{shown} is a directory; name the file in it")
        if not path.is_file():
            raise UsageError(f"{shown} is not a regular file; {_REMEDY}")
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{shown} is larger than 256 KiB, so no config; {_REMEDY}")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise UsageError(f"{shown} cannot be read ({reason}); {_REMEDY}") from None


def _json(text: str, shown: str) -> Any:
    """The values, or None where it is YAML that begins with a brace."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if shown.endswith(".json"):
            where = f"line {error.lineno}, column {error.colno}"
            raise UsageError(f"{shown} is not valid JSON ({where}: {error.msg})") from None
        return None
    except (ValueError, RecursionError):
        raise UsageError(f"{shown} holds numbers or nesting beyond any config") from None


def _yaml(text: str, shown: str) -> Any:
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UsageError(f"{shown} nests values beyond any config; {_REMEDY}")
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = one_line(str(error.problem or error.context))
        raise UsageError(f"{shown} is not valid YAML ({where}{problem})") from None
    except (yaml.YAMLError, *_MISREAD) as error:
        problem = one_line(" ".join(str(error).split())[:120])
        raise UsageError(f"{shown} is not valid YAML ({problem})") from None


def _beyond(value: Any, depth: int, left: list[int]) -> bool:
    """Whether values nest deeper than ``depth`` or are more than ``left[0]``."""
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        return True
    inner = value.values() if isinstance(value, dict) else value if _listed(value) else ()
    return any(_beyond(item, depth - 1, left) for item in inner)


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple | set)
