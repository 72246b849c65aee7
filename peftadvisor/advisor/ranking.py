"""Which methods go before others, whatever they cost: by published comparisons, then by rules.

0   recommended first: evidence says likely better, or a finding of the survey does and no
    comparison speaks against it
1   the reference, or on par with it, or unresolved
2   too little evidence, or none
3   likely worse, or a finding of the survey warns of it
"""

from __future__ import annotations

from peftadvisor.advisor.asked import asked_about
from peftadvisor.advisor.evidence import weigh
from peftadvisor.advisor.question import Question
from peftadvisor.methods.base import Method

FIRST = frozenset({"R2", "R9"})
LAST = frozenset({"R10", "R11", "R12", "R21"})
_TIERS = {
    "likely better": 0,
    "reference": 1,
    "on par or unresolved": 1,
    "insufficient": 2,
    "none": 2,
    "likely worse": 3,
}


def tier(question: Question, method: Method) -> int:
    """Of a method, for this model and job."""
    asked = asked_about(question.model, question.training, question.job)
    by_evidence = _TIERS[weigh(method.name, asked).label]
    if set(method.rules) & LAST:
        return 3
    return 0 if by_evidence <= 1 and set(method.rules) & FIRST else by_evidence
