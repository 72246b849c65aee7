"""The named answers: safest default, cheapest, smallest in memory."""

from __future__ import annotations

from collections.abc import Sequence

from peftadvisor.advisor.question import Choice, Pick, Question
from peftadvisor.advisor.searching import Search


def picks(
    question: Question, choices: Sequence[Choice], searches: Sequence[Search]
) -> tuple[Pick, ...]:
    """Up to three."""
    return ()
