"""Findings of published comparisons that apply to a run, and where their sources disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from peftadvisor.advisor.advised import Finding
from peftadvisor.advisor.asked import Asked
from peftadvisor.advisor.evidence import LORA_VARIANTS, REFERENCE, on_own_base
from peftadvisor.data.evidence_rules import FindingRow, finding_rows
from peftadvisor.methods import find_method

_GROUPS: Mapping[str, frozenset[str]] = {
    "lora-like": REFERENCE | LORA_VARIANTS,
    "lora-variants": LORA_VARIANTS - {"lora-mlp", "qlora"},
}
_WHEN: Mapping[str, Callable[[Asked], bool]] = {
    "": lambda asked: True,
    "quantized": lambda asked: asked.quantization not in (None, "none"),
    "instruct": lambda asked: asked.instruct is True,
    "many-adapters": lambda asked: asked.many_adapters,
}


def findings(method: str, asked: Asked) -> tuple[Finding, ...]:
    """What published comparisons say for, against or in disagreement on a method for this run.

    Findings for a task are left out where the task is not known, as are those for a model tuned
    on instructions where that is not known.

    Raises:
        UnknownNameError: no such method.
    """
    known = find_method(method)
    asked = on_own_base(known, asked)
    return tuple(
        Finding(
            rule=row.rule,
            kind=row.kind,
            statement=row.statement,
            source=row.source,
            confidence=row.confidence,
        )
        for row in finding_rows()
        if _applies(row, method, asked)
    )


def _applies(row: FindingRow, method: str, asked: Asked) -> bool:
    named = any(method in _GROUPS.get(name, (name,)) for name in row.methods)
    return (
        (named or not row.methods)
        and (asked.task in row.tasks or not row.tasks)
        and _WHEN[row.when](asked)
    )
