"""What published comparisons say about a method's quality against LoRA, for the run asked about.

No accuracy is predicted. ``weigh`` pools comparisons (``advisor/pooling.py``) and puts a label to
them; where nothing is known near what is asked, the label is ``none``, which is an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from peftadvisor.advisor.asked import Asked
from peftadvisor.advisor.pooling import Pooled, pool
from peftadvisor.data.evidence import (
    Comparison,
    against_lora,
    comparisons,
    evidence_sources,
)
from peftadvisor.data.evidence_rules import full_verdicts
from peftadvisor.methods import find_method
from peftadvisor.methods.base import Method
from peftadvisor.profiles import Evidence

REFERENCE = frozenset({"lora", "lora-all"})
"""What others are compared with. Sources place their LoRA on query and value, or on all layers."""

LORA_VARIANTS = frozenset(
    {
        "adalora",
        "delora",
        "dora",
        "dylora",
        "gralora",
        "hira",
        "lily",
        "loftq",
        "lora-fa",
        "lora-mlp",
        "lora-plus",
        "miss",
        "oft",
        "olora",
        "pissa",
        "qlora",
        "rslora",
        "shira",
        "vera",
        "x-lora",
    }
)
"""Methods whose prior says "much like LoRA": studies that tuned the learning rate of each variant
found it within one or two percent of LoRA. Which methods that covers is a judgement."""
LORA_LIKE_PRIOR, OTHER_PRIOR = 2.0, 1.0

_BOTTLENECKS = (
    "houlsby",
    "pfeiffer",
    "parallel-adapter",
    "scaled-parallel",
    "series-adapter",
    "bottleneck-adapter",
)
POOLED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_BOTTLENECKS[:4], _BOTTLENECKS),
    "prefix-flat": ("prefix-flat", "prefix-tuning"),
    "prefix-mlp": ("prefix-tuning",),
}
"""Methods that speak for each other: sources seldom say which bottleneck or prefix they mean."""

LEAST_FOR_ANY = 0.5
LEAST_FOR_A_LABEL = 1.0
LEAST_SOURCES = 2
EVEN = 0.5

LONGEST_CONTEXT = 8192
LARGEST_MODEL = 71e9  # what is sold as 70B holds up to 70.6e9

_BEYOND: Mapping[str, Callable[[Asked], bool]] = {
    "no comparison is on a vision model": lambda asked: asked.kind == "vision",
    "no comparison is on a speech model": lambda asked: asked.kind == "speech",
    "no comparison is on a state-space model": lambda asked: asked.kind == "state-space",
    "no comparison adapts the experts of a mixture": lambda asked: asked.adapts_experts,
    "no comparison is on a model above 70B": lambda asked: (asked.parameters or 0) > LARGEST_MODEL,
    "no comparison is at contexts beyond 8k tokens": lambda asked: (
        (asked.context_tokens or 0) > LONGEST_CONTEXT
    ),
    "hardly any comparison is on an 8-bit base": lambda asked: asked.quantization == "int8",
}
"""What nothing may be said about, and why."""


def weigh(method: str, asked: Asked) -> Evidence:
    """How likely the method is at least as good as well-tuned LoRA, and who says so.

    ``probability_at_least_lora`` is the posterior mean of the chance that one more comparison near
    what is asked comes out in favour of the method, ties counting half; ``low`` and ``high`` are
    its 80 % interval. LoRA itself is the ``reference`` and full fine-tuning is judged by task:
    neither has a probability.

    Raises:
        UnknownNameError: no such method.
    """
    known = find_method(method)
    if method in REFERENCE:
        return Evidence(label="reference", reason="what other methods are compared with")
    for reason, beyond in _BEYOND.items():
        if beyond(asked):
            return Evidence(reason=reason)
    if method == "full":
        return _full(asked)
    names = POOLED.get(method, (method,))
    rows = tuple(row for name in names for row in against_lora().get(name, ()))
    if not rows:
        return Evidence(reason=_nothing(method))
    asked = on_own_base(known, asked)
    prior = LORA_LIKE_PRIOR if method in LORA_VARIANTS else OTHER_PRIOR
    sources = evidence_sources()
    pooled = pool(rows, asked, {key: source.weight for key, source in sources.items()}, prior)
    return _judged(method, pooled, rows, asked)


def label_of(pooled: Pooled) -> str:
    """The words for a posterior: an interval that holds an even chance says nothing."""
    if pooled.effective < LEAST_FOR_ANY:
        return "none"
    if pooled.effective < LEAST_FOR_A_LABEL or len(pooled.worth) < LEAST_SOURCES:
        return "insufficient"
    low, high = pooled.interval
    if low > EVEN:
        return "likely better"
    return "likely worse" if high < EVEN else "on par or unresolved"


def _judged(method: str, pooled: Pooled, rows: tuple[Comparison, ...], asked: Asked) -> Evidence:
    label = label_of(pooled)
    if label == "none":
        return Evidence(reason="what was compared is too far from what is asked")
    sources = evidence_sources()
    own = {row.source for row in rows if row.method in sources[row.source].own_methods}
    counted = [row for row in rows if row.source in pooled.worth]
    remarks = {
        "one source": len(pooled.worth) < LEAST_SOURCES,
        "only self-reported": not set(pooled.worth) - own,
        "worth less than one comparison": pooled.effective < LEAST_FOR_A_LABEL,
        "data more than ten times off": _far_off(counted, asked.examples),
        "related methods are pooled": {row.method for row in counted} != {method},
    }
    low, high = pooled.interval
    return Evidence(
        label=label,
        probability_at_least_lora=pooled.mean,
        low=low,
        high=high,
        sources=tuple(sorted(pooled.worth, key=lambda key: -pooled.worth[key])),
        independent_sources=len(set(pooled.worth) - own),
        reason="; ".join(remark for remark, holds in remarks.items() if holds),
    )


def _far_off(rows: list[Comparison], examples: int | None) -> bool:
    """Whether the size of the data is more than ten times off that of every row that states it."""
    stated = [row.examples for row in rows if row.examples is not None]
    if examples is None or not stated:
        return False
    return all(not 0.1 <= known / examples <= 10 for known in stated)


def on_own_base(method: Method, asked: Asked) -> Asked:
    """The question with the quantized base that the method brings along."""
    if method.quantization is None or asked.quantization not in (None, "none"):
        return asked
    return replace(asked, quantization=method.quantization)


def _nothing(method: str) -> str:
    others = sorted({row.comparator for row in comparisons() if row.method == method})
    if others:
        return f"compared with {', '.join(others)} alone, not with LoRA"
    return "no published comparison with LoRA is known"


def _full(asked: Asked) -> Evidence:
    """By a rule for each task: its published runs mix learning rates that fit and that do not."""
    verdicts = full_verdicts()
    verdict = verdicts.get(asked.task or "", verdicts[""])
    return Evidence(
        label=verdict.label,
        sources=verdict.sources,
        independent_sources=len(verdict.sources),
        reason=verdict.reason,
    )
