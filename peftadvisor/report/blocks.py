"""What pages of reports are made of: sections of tiles, figures, tables, remarks and links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from peftadvisor.report.drawing import Drawing
from peftadvisor.report.grid import Grid


@dataclass(frozen=True, slots=True)
class Tiles:
    """Numbers to see first: name, value, what it means."""

    kind: ClassVar[str] = "tiles"
    entries: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; ``folded`` ones are opened by their summary."""

    kind: ClassVar[str] = "table"
    grid: Grid
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Remarks:
    """Sentences, one below the other."""

    kind: ClassVar[str] = "remarks"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """Names and what is said of each."""

    kind: ClassVar[str] = "terms"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """Drawings side by side."""

    kind: ClassVar[str] = "figures"
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """Where a statement comes from; ``href`` is empty where it is no address."""

    text: str
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One method: its line, its facts and the sources that its evidence rests on."""

    key: str
    number: str
    name: str
    line: str
    facts: tuple[tuple[str, str], ...]
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Cards:
    """Methods, each to be opened."""

    kind: ClassVar[str] = "cards"
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """A figure to walk along; ``moments`` says what is to be read at each place: x, text.

    ``start`` is the moment that is shown first.
    """

    kind: ClassVar[str] = "walk"
    drawing: Drawing
    moments: tuple[tuple[float, str], ...]
    start: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slider:
    """A control with its stops; ``start`` is the place of the run's own."""

    name: str
    label: str
    stops: tuple[str, ...]
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The what-if: its sliders, the names of its answers, and what the script works with."""

    kind: ClassVar[str] = "controls"
    sliders: tuple[Slider, ...]
    answers: tuple[tuple[str, str], ...]
    owners: tuple[tuple[str, str], ...]
    data: Mapping[str, Any] = field(hash=False, compare=False)


Block: TypeAlias = "Tiles | Table | Remarks | Terms | Figures | Cards | Walk | Controls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page; ``lead`` says in a sentence what it shows."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A page: the question, the answer, and its sections.

    ``mood`` is how the answer is to look: fits, tight, oom, or plain.
    """

    title: str
    answer: str
    mood: str
    lead: str
    sections: tuple[Section, ...]
