"""Which methods go before others, whatever they cost: by published comparisons, then by rules.

0   likely better than LoRA; and LoRA itself, placed as the survey recommends (R9)
1   a finding of the survey recommends it (R2, R9), and comparisons do not speak against it
2   on par with LoRA, or unresolved
3   too little evidence, or none
4   likely worse, or a finding of the survey warns of it
"""

from __future__ import annotations

from peftadvisor.advisor.asked import asked_about
from peftadvisor.advisor.evidence import weigh
from peftadvisor.advisor.question import Question
from peftadvisor.methods.base import Method

PLACEMENT = "R9"
FOR = frozenset({"R2", PLACEMENT})
AGAINST = frozenset({"R10", "R11", "R12", "R21"})
_TIERS = {
    "likely better": 0,
    "reference": 2,
    "on par or unresolved": 2,
    "insufficient": 3,
    "none": 3,
    "likely worse": 4,
}


def tier(question: Question, method: Method) -> int:
    """Of a method, for this model and job."""
    label = weigh(method.name, asked_about(question.model, question.training, question.job)).label
    rules = set(method.rules)
    if rules & AGAINST:
        return _TIERS["likely worse"]
    if label == "reference" and PLACEMENT in rules:
        return 0
    return min(_TIERS[label], 1) if rules & FOR and label != "likely worse" else _TIERS[label]
