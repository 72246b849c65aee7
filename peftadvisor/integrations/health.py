"""What is here and works, what is missing, and what of it matters: the value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from peftadvisor.profiles import SCHEMA_VERSION

Area = Literal["advice", "recording", "machine", "files", "environment"]
State = Literal["ok", "note", "fault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: ``fault`` where advice does not work without it, else ``note``."""

    area: Area
    name: str
    state: State = "ok"
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All that was looked at, in the order in which it matters."""

    version: str
    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether all is here that advice on a bundled model needs."""
        return not any(check.state == "fault" for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0, or 1 where something that advice needs does not work."""
        return 0 if self.works else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "version": self.version,
            "works": self.works,
            "checks": [asdict(check) for check in self.checks],
        }
