"""Errors a user can act on.

PeftAdvisorError            exit code 1, anything that went wrong inside
└── UsageError              exit code 2, bad input: one line that names the input and the remedy
    ├── UnknownNameError    a model, GPU or method nobody has heard of, with "did you mean"
    └── UnsupportedError    a combination that cannot exist (BitFit on a model without biases)

Only ``cli.main`` turns these into exit codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class PeftAdvisorError(Exception):
    """Base of every error raised on purpose; the message is one line for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(PeftAdvisorError):
    """The input is wrong; the message names it and says what to do."""

    exit_code: ClassVar[int] = 2


class UnknownNameError(UsageError):
    """A name that no catalog row carries."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Say ``unknown KIND 'NAME'; did you mean 'X'? See: peftadvisor list KINDs``."""
        import difflib  # slow to import, and needed only now

        names = sorted(set(known))
        by_key = {candidate.lower(): candidate for candidate in names}
        close = difflib.get_close_matches(name.lower(), list(by_key), n=1, cutoff=0.6)
        hint = f"; did you mean '{by_key[close[0]]}'?" if close else ";"
        super().__init__(f"unknown {kind} '{name}'{hint} See: peftadvisor list {kind.lower()}s")


class UnsupportedError(UsageError):
    """The combination asked for cannot exist or cannot be predicted without more installed."""
