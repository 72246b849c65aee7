"""Which packages are installed, and whether they are the versions that peftadvisor names.

The ranges are those of its own metadata, so there is one place for them: pyproject.toml. Nothing
is imported to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

Numbers = tuple[int, ...]

NEEDED = ""
"""The extra of what is needed in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package that peftadvisor names: its range, for which extra, and the version found."""

    name: str
    wanted: str
    extra: str
    found: str | None

    @property
    def fits(self) -> bool:
        """Whether it is here, in a version of the range."""
        return self.found is not None and within(self.found, self.wanted)


def packages(distribution: str = "peftadvisor") -> tuple[Package, ...]:
    """What the metadata of a distribution names, in its order; empty where it has none."""
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return ()
    return tuple(_packages(lines))


def found_version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def within(found: str, wanted: str) -> bool:
    """Whether a version satisfies every clause, such as ``>=2.11,<2.16``; a blank takes any.

    Compares the numbers alone: a release candidate counts as its release.
    """
    return all(_holds(found, clause.strip()) for clause in wanted.split(",") if clause.strip())


def _packages(lines: list[str]) -> Iterator[Package]:
    for line in lines:
        requirement, _, marker = line.partition(";")
        match = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra == [\"']([^\"']+)", marker)
        if match is None:
            continue
        yield Package(
            name=match[0],
            wanted=requirement[match.end() :].strip(" ()"),
            extra=extra[1] if extra else NEEDED,
            found=found_version(match[0]),
        )


def _holds(found: str, clause: str) -> bool:
    match = re.fullmatch(r"(==|!=|>=|<=|>|<)\s*([0-9][^*]*?)(\.\*)?", clause)
    if match is None:  # a clause of another kind says nothing that could be told here
        return True
    bound = _numbers(match[2])
    have = _numbers(found)
    if match[3]:
        have = have[: len(bound)]
    return _COMPARES[match[1]](*_padded(have, bound))


def _numbers(text: str) -> Numbers:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else (0,)


def _padded(one: Numbers, other: Numbers) -> tuple[Numbers, Numbers]:
    length = max(len(one), len(other))
    return one + (0,) * (length - len(one)), other + (0,) * (length - len(other))


_COMPARES: Mapping[str, Callable[[Numbers, Numbers], bool]] = {
    "==": lambda have, bound: have == bound,
    "!=": lambda have, bound: have != bound,
    ">=": lambda have, bound: have >= bound,
    "<=": lambda have, bound: have <= bound,
    ">": lambda have, bound: have > bound,
    "<": lambda have, bound: have < bound,
}
