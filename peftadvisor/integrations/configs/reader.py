"""Values taken from a config one by one, each noted with the key or the default that gave it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.value import Traced

T = TypeVar("T")
MISSING = object()
"""What no file holds: the absence of a key where None is a value."""


class Reader:
    """The values of one config, which of them were asked for, and what came of them.

    Keys are dotted (``fsdp_config.version``). A key that holds null counts as left out, as the
    tools themselves have it.
    """

    def __init__(self, values: Mapping[str, Any], file: str, defaults_of: str) -> None:
        """``file`` is named in complaints, ``defaults_of`` in traces (``axolotl 0.19``)."""
        self.values, self.file, self.defaults_of = values, one_line(file), defaults_of
        self.traced: list[Traced] = []
        self._asked: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether the file gives the key a value."""
        return self._at(key) is not MISSING

    def peek(self, key: str, default: Any = None) -> Any:
        """What stands at a key, untraced; the key counts as known."""
        found = self._at(key)
        return default if found is MISSING else found

    def told(self, key: str) -> str:
        """The key and what stands at it, as a trace says it."""
        return f"{key}: {shown(self.peek(key))}"

    def take(
        self, name: str, key: str, read: Callable[[Any], T], default: T, why: str | None = None
    ) -> T:
        """The value at ``key`` as ``read`` understands it, or the tool's default; traced.

        ``why`` replaces the words on where a default comes from.

        Raises:
            UsageError: ``read`` raised ValueError: the file, the key and its remedy are named.
        """
        found = self._at(key)
        if found is MISSING:
            self.note(name, default, None, why or f"default of {self.defaults_of}")
            return default
        value = self.understood(key, found, read)
        self.note(name, value, key, self.told(key))
        return value

    def understood(self, key: str, found: Any, read: Callable[[Any], T]) -> T:
        """``read`` of what stands at a key.

        Raises:
            UsageError: it raised ValueError, whose message says what belongs there.
        """
        try:
            return read(found)
        except ValueError as error:
            raise UsageError(f"{self.file}: '{key}' is {shown(found)}; {error}") from None

    def note(self, name: str, value: Any, key: str | None, source: str) -> None:
        """Trace a value that was worked out elsewhere, in place of an earlier trace of its name."""
        self.traced = [traced for traced in self.traced if traced.name != name]
        self.traced.append(Traced(name=name, value=value, key=key, source=source))

    def unknown(self, ignored: Collection[str], prefixes: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Top-level and asked-into keys that nobody asked for, but for those without effect."""
        without = {*ignored, *self._asked}
        found = [key for key in self._keys(self.values, "") if key not in without]
        return tuple(one_line(key) for key in found if not key.startswith(prefixes))

    def _keys(self, values: Mapping[str, Any], above: str) -> Iterator[str]:
        for name, value in values.items():
            key = f"{above}{name}"
            asked_into = any(asked.startswith(f"{key}.") for asked in self._asked)
            if asked_into and key not in self._asked and isinstance(value, Mapping | None):
                yield from self._keys(value or {}, f"{key}.")
            else:
                yield key

    def _at(self, key: str) -> Any:
        self._asked.add(key)
        here: Any = self.values
        for part in key.split("."):
            if not isinstance(here, Mapping) or here.get(part) is None:
                return MISSING
            here = here[part]
        return here


def shown(value: Any) -> str:
    """A value for a message: one line, not long."""
    text = one_line(str(value).lower() if isinstance(value, bool) else str(value))
    return text if len(text) <= 60 else text[:57] + "..."


def text(value: Any) -> str:
    """A name or a path."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a name")
    return value.strip()


def whole(value: Any) -> int:
    """A positive whole number; also as text (``"4"``) or ``4.0``, as the tools take it."""
    number = amount(value)
    if number != int(number) or number < 1:
        raise ValueError("write a whole number of 1 or more")
    return int(number)


def amount(value: Any) -> float:
    """A number of 0 or more; YAML reads ``1e-4`` as text, which the tools turn into a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("write a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError("write a number") from None
    if not 0 <= number <= 1e18:
        raise ValueError("write a number of 0 or more")
    return number


def figure(value: Any) -> float:
    """An amount, as a whole number where it is one."""
    number = amount(value)
    return int(number) if number == int(number) else number


def switch(value: Any) -> bool:
    """True or false; also as text, as the tools take it."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word not in words:
        raise ValueError("write true or false")
    return words[word]


def one_of(choices: Mapping[str, T]) -> Callable[[Any], T]:
    """A reader of names: the value that belongs to one, whatever its case."""

    def read(value: Any) -> T:
        name = str(value).lower()
        if name not in choices:
            raise ValueError(f"known here: {', '.join(choices)}")
        return choices[name]

    return read


def names(value: Any) -> tuple[str, ...]:
    """A list of names; also as one text with commas."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(n, str | int) for n in found):
        raise ValueError("write a list of names")
    given = tuple(str(name).strip() for name in found if str(name).strip())
    if not given:
        raise ValueError("write at least one name")
    return given
