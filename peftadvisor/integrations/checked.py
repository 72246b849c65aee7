"""What a pre-flight check says of a config: the verdict, the reasons, and a change that helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peftadvisor.integrations.configs.value import Change, ReadConfig, Traced
from peftadvisor.profiles import SCHEMA_VERSION, Estimate

Level = Literal["error", "warning", "note"]
EXIT_CODES = {"fits": 0, "oom": 3, "tight": 4}
"""Of a run that passes every gate; one that misses a gate ends with 3."""
MEMORY_RULE = "out-of-memory"
"""Of a problem that says that the run would not fit, or might not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing said of the config.

    ``rule`` is a stable name (``out-of-memory``, ``max-hours``, ``rate-outside-tested``); errors
    fail the check. ``key`` is the dotted key it speaks of and ``line`` where that stands, counted
    from 1; None where it is of the config as a whole. ``source`` says who says so, or is empty.
    """

    rule: str
    level: Level
    message: str
    source: str = ""
    key: str | None = None
    line: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """The smallest change after which the run fits.

    ``words`` says it in a clause or two, ``diff`` as a unified diff of the file, whose new text
    is ``text``; both are empty where the tool has no key for it. ``estimate`` is what it gives.
    """

    change: Change
    words: str
    diff: str
    text: str
    estimate: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One config, checked for one GPU."""

    path: str
    config: ReadConfig
    estimate: Estimate
    problems: tuple[Problem, ...]
    fix: Fix | None

    @property
    def exit_code(self) -> int:
        """0 fits and passes every gate, 3 would not fit or misses a gate, 4 is too risky."""
        code = EXIT_CODES[self.estimate.verdict]
        return 3 if code == 0 and self.at("error") else code

    @property
    def traced(self) -> tuple[Traced, ...]:
        """Every value of the run, with the key or the default that gave it."""
        return self.config.traced

    def at(self, level: Level) -> Sequence[Problem]:
        """The problems of one level."""
        return [problem for problem in self.problems if problem.level == level]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the estimate's contract, and around it what the check adds."""
        return {
            "schema_version": SCHEMA_VERSION,
            "config": {
                "path": self.path,
                "tool": self.config.tool,
                "version": self.config.version,
                "values": [traced.to_dict() for traced in self.traced],
                "unknown_keys": list(self.config.unknown),
                "notes": list(self.config.notes),
            },
            "exit_code": self.exit_code,
            "estimate": self.estimate.to_dict(),
            "problems": [problem.to_dict() for problem in self.problems],
            "fix": None
            if self.fix is None
            else {
                "change": dict(self.fix.change),
                "words": self.fix.words,
                "diff": self.fix.diff,
                "estimate": self.fix.estimate.to_dict(),
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One config or several, checked in one go: what is reported.

    ``limits`` are the rules of the limits that were set (``max-hours``, ``max-usd``), missed or
    not, so that a report can tell one that is kept from one that nobody asked for.
    """

    verdicts: tuple[Verdict, ...]
    limits: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """That of the worst verdict: 3 is worse than 4, which is worse than 0."""
        return max((one.exit_code for one in self.verdicts), key=_FROM_BEST.index, default=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the verdict itself where there is one, else a list of them."""
        if len(self.verdicts) == 1:
            return self.verdicts[0].to_dict()
        return {
            "schema_version": SCHEMA_VERSION,
            "exit_code": self.exit_code,
            "checks": [verdict.to_dict() for verdict in self.verdicts],
        }


_FROM_BEST = (0, 4, 3)
