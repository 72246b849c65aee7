"""What a fine-tuning method is: facts, defaults, and how it is attached to a real model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from peftadvisor.errors import UsageError
from peftadvisor.specs import MethodSpec, Quantization

Family = Literal["full", "adapter", "soft prompt", "selective", "reparametrization", "additive"]
Attach = Callable[[Any, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of the field.

    ``attach(model, settings)`` changes a transformers model in place or wraps it, leaves
    ``requires_grad`` set on exactly what is trained, and returns the model to call. Models may
    be on the meta device. ``virtual_tokens`` names the setting by which sequences get longer, if
    any. ``defaults`` holds every hyperparameter with its default; a None
    means "as the library decides for this model".
    """

    name: str
    title: str
    family: Family
    citation: str
    defaults: Mapping[str, Any]
    attach: Attach = field(repr=False)
    rules: tuple[str, ...] = ()
    quantization: Quantization | None = None
    mergeable: bool = False
    virtual_tokens: str | None = None

    def settings(self, spec: MethodSpec) -> dict[str, Any]:
        """The defaults with the user's changes.

        Raises:
            UsageError: a hyperparameter that the method does not have.
        """
        unknown = sorted(set(dict(spec.settings)) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise UsageError(f"{self.name} has no setting '{unknown[0]}'; it has: {known}")
        return {**self.defaults, **dict(spec.settings)}
