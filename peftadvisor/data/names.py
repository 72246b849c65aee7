"""Finding the one catalog row a name means; never a guess, never a fallback row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from peftadvisor.errors import UnknownNameError, UsageError

_SHOWN_CHARACTERS = 200


def one_line(text: str) -> str:
    """Text from outside as an error message may hold it: printable, on one line, not endless."""
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return "".join(c if c.isprintable() else "?" for c in shown)


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Which row ids each spelling stands for; ``key`` folds spellings that mean the same."""

    kind: str
    key: Callable[[str], str]
    ids_by_key: Mapping[str, tuple[str, ...]]

    def resolve(self, name: str, suggestions: Iterable[str]) -> str:
        """The id that ``name`` stands for.

        Raises:
            UnknownNameError: no row carries the name; a close one of ``suggestions`` is offered.
            UsageError: several rows carry it; all of them are listed.
        """
        ids = self.ids_by_key.get(self.key(name), ())
        shown = one_line(name)
        if not ids:
            raise UnknownNameError(self.kind, shown, suggestions)
        if len(ids) > 1:
            raise UsageError(
                f"{self.kind} '{shown}' is ambiguous; write one of: {', '.join(sorted(ids))}"
            )
        return ids[0]


def build_index(
    kind: str, key: Callable[[str], str], spellings: Iterable[tuple[str, str]]
) -> NameIndex:
    """Index ``(spelling, id)`` pairs; the spelling that is an id itself always wins."""
    pairs = list(spellings)
    found: dict[str, dict[str, None]] = {}
    for spelling, row_id in pairs:
        found.setdefault(key(spelling), {})[row_id] = None
    exact = {key(row_id): (row_id,) for row_id in {row_id for _, row_id in pairs}}
    return NameIndex(kind, key, {k: tuple(ids) for k, ids in found.items()} | exact)
