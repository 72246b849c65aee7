"""LoRA and its variants, as the tools that know nothing else want them told."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from peftadvisor.data.query_value import QueryValue, query_value
from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.integrations.exports.value import Export

VARIANTS: dict[str, dict[str, bool]] = {
    "lora": {},
    "lora-all": {},
    "qlora": {},
    "dora": {"dora": True},
    "rslora": {"rslora": True},
    "lora-plus": {},
    "pissa": {},
    "olora": {},
}
"""Methods that are LoRA with another switch or start."""
ALL_LINEAR = "all-linear"
REMOTE = frozenset({"baichuan", "chatglm", "internlm2"})
"""Model types whose checkpoints run code of their own, with layers of other names."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Rank, scale and targets.

    ``names`` are last names of modules, None for all linear layers; ``pattern`` is what their
    paths match where names say too much.
    """

    rank: int
    alpha: float
    dropout: float
    names: tuple[str, ...] | None
    pattern: str | None
    dora: bool = False
    rslora: bool = False

    @property
    def targets(self) -> str | list[str]:
        """What PEFT's ``target_modules`` takes."""
        if self.names is None:
            return ALL_LINEAR
        return self.pattern or list(self.names)


def lora_of(export: Export) -> Lora:
    """The LoRA of the run, where it is one of ``VARIANTS``.

    Raises:
        UsageError: its targets are a pattern, which has to be told by names.
        UnsupportedError: the layers of this model are not on file, and torch is not installed.
    """
    settings = export.settings
    targets = _targets(export, settings["target_modules"])
    return Lora(
        rank=settings["rank"],
        alpha=settings["alpha"],
        dropout=settings["dropout"],
        names=None if targets is None else targets.names,
        pattern=None if targets is None else targets.pattern,
        **VARIANTS[export.run.method.name],
    )


def whole(lora: Lora, tool: str) -> int:
    """Alpha for a tool that takes whole numbers only.

    Raises:
        UsageError: it is none.
    """
    if lora.alpha != int(lora.alpha):
        raise UsageError(f"{tool} takes whole numbers for alpha, not {lora.alpha}; use peft")
    return int(lora.alpha)


def _targets(export: Export, named: Any) -> QueryValue | None:
    if named == ALL_LINEAR:
        return None
    if isinstance(named, str):
        return QueryValue(names=_names_in(named), pattern=named)
    if named:
        return QueryValue(names=tuple(named), pattern=None)
    return query_value(export.run.model.model_type) or _found(export)


def _names_in(pattern: str) -> tuple[str, ...]:
    """The last names that a pattern ends in, ``(q_proj|v_proj)`` or one name; empty if unclear."""
    end = re.search(r"\.\(?(\w+(?:\|\w+)*)\)?$", pattern)
    return tuple(end[1].split("|")) if end else ()


def _found(export: Export) -> QueryValue:
    """The projections of a model that is not on file: its modules are built to see."""
    from peftadvisor.integrations.exports.modules import attachment

    fields = dict(attachment(export).fields)
    targets = fields.get("target_modules")
    if isinstance(targets, str):
        return QueryValue(names=_names_in(targets), pattern=targets)
    if not targets:
        raise UnsupportedError(
            f"the query and value projections of {export.run.model.id} are not known; "
            "name layers by --target-modules"
        )
    return QueryValue(names=tuple(targets), pattern=None)
