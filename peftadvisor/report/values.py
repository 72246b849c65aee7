"""What can be rendered, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from peftadvisor.profiles import SCHEMA_VERSION, Estimate

if TYPE_CHECKING:
    from peftadvisor.advisor.comparing import Comparison
    from peftadvisor.advisor.question import Recommendation
    from peftadvisor.integrations.answers import Story
    from peftadvisor.integrations.checked import Checked
    from peftadvisor.integrations.health import Health
    from peftadvisor.integrations.validation import Validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where text goes: its width in characters, and whether it may hold colour."""

    width: int = 100
    color: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows of a catalog; ``columns`` are those that text shows, JSON has them all."""

    kind: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema_version": SCHEMA_VERSION, self.kind: [dict(row) for row in self.rows]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """All that is known of one thing: ``data`` is the whole, text shows facts and a table."""

    title: str
    facts: Mapping[str, str]
    table: Listing
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema_version": SCHEMA_VERSION, **self.data}


Value: TypeAlias = (
    "Checked | Comparison | Estimate | Health | Listing | Recommendation | Sheet | Story | "
    "Validation"
)
