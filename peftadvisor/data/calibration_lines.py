"""Lines of a calibration file, checked key by key: a fault names the file, the line and the key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError

_REMEDY = "delete it and run: peftadvisor calibrate"


@dataclass(frozen=True, slots=True)
class Checked:
    """A JSON object from a file; each accessor raises UsageError naming file, line and key."""

    path: Path
    number: int
    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def error(self, problem: str, remedy: str = _REMEDY) -> UsageError:
        """An error about this line, for the caller to raise."""
        where = f"{one_line(str(self.path))}, line {self.number}"
        return UsageError(f"{where}: {problem}; {remedy}")

    def inner(self, key: str) -> Checked:
        """An object inside the object."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Checked(self.path, self.number, value)

    def text(self, key: str, *, may_be_blank: bool = False) -> str:
        """A text."""
        value = self._get(key)
        if not isinstance(value, str) or not (value or may_be_blank):
            raise self._wrong(key, "a text")
        return value

    def texts(self, key: str) -> dict[str, str]:
        """Texts by name."""
        inner = self.inner(key)
        return {name: inner.text(name, may_be_blank=True) for name in inner.values}

    def whole(self, key: str) -> int:
        """A whole number from 0."""
        value = self._get(key)
        if not _is_whole(value):
            raise self._wrong(key, "a whole number from 0")
        return int(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers from 0."""
        value = self._get(key)
        if not isinstance(value, list) or not all(map(_is_whole, value)):
            raise self._wrong(key, "a list of whole numbers from 0")
        return tuple(value)

    def whole_or_none(self, key: str) -> int | None:
        """A whole number from 0, or null."""
        return None if self._get(key) is None else self.whole(key)

    def number_or_none(self, key: str) -> float | None:
        """A finite number from 0, or null."""
        value = self._get(key)
        if value is None:
            return None
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not 0 <= value < math.inf:
            raise self._wrong(key, "a number from 0")
        return float(value)

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(f"key '{key}' is missing")
        return self.values[key]

    def _wrong(self, key: str, wanted: str) -> UsageError:
        shown = one_line(json.dumps(self.values[key]))[:60]
        return self.error(f"key '{one_line(key)}' is {shown}, not {wanted}")


def checked_lines(path: Path) -> Iterator[Checked]:
    """The lines of a file, each a JSON object; a last one without its line end is left out.

    Raises:
        UsageError: the file cannot be read, or a line is no JSON object.
    """
    shown = one_line(str(path))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{shown} cannot be read ({reason}); {_REMEDY}") from None
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise Checked(path, number, {}).error("is no JSON object")
        yield Checked(path, number, value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
