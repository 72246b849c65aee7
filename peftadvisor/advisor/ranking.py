"""Which methods go before others, whatever they cost."""

from __future__ import annotations

from peftadvisor.advisor.question import Question
from peftadvisor.methods.base import Method

FIRST = frozenset({"R1", "R2", "R9", "R20"})
LAST = frozenset({"R10", "R11", "R12", "R21"})


def tier(question: Question, method: Method) -> int:
    """0 for methods that the survey recommends first, 2 for those that it warns of, else 1."""
    rules = set(method.rules)
    return 0 if rules & FIRST else 2 if rules & LAST else 1
