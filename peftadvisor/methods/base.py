"""What a fine-tuning method is: facts, hyperparameters, formulas, how it is attached and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peftadvisor.errors import UnsupportedError, UsageError
from peftadvisor.specs import MethodSpec, Quantization

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout

Family = Literal[
    "full", "adapter", "soft prompt", "selective", "reparametrization", "additive", "hybrid"
]
YesNo = Literal["yes", "no", "maybe"]
Settings = Mapping[str, Any]
Dependence = Literal["any", "linear", "zero", "none"]
MakeOptimizer = Callable[[list[Any]], Any]
"""Makes the optimizer that the user chose over parameters or parameter groups."""

Attach = Callable[[Any, Settings], Any]

NONZERO = 0.5
"""Stands for all shares between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A setting of a method: its default, what is worth trying, and who says so.

    A default of None means "as the library decides for this model". ``low`` and ``high`` bound
    what is recommended, ``choices`` what is allowed. ``shapes`` is what the tensors and kernels of
    a run depend on: anything about it, a number by which their sizes grow (``linear``, a rank:
    recordings check it), whether it is ``zero``, or ``none`` of it.
    """

    name: str
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    rule: str = ""
    source: str = ""
    shapes: Dependence = "any"

    def same_shapes(self, value: Any) -> Any:
        """The value to stand for all that tensors and kernels cannot tell from this one."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.shapes == "none" and number:
            return self.default
        if self.shapes == "zero" and number and 0 <= value < 1:
            representative = NONZERO if value else 0.0
            return self.default if bool(value) == bool(self.default) else representative
        return value


@dataclass(frozen=True, slots=True)
class Axes:
    """The four questions of the taxonomy (Lialin et al. 2023), and how sure the answers are.

    ``storage``: few parameters to keep; ``memory``: less training memory than full fine-tuning;
    ``backprop``: no backpropagation through the backbone; ``inference``: what is computed
    besides. ``confidence``: "seen" in the survey, "recalled" from it, or "derived" here.
    """

    storage: YesNo
    memory: YesNo
    backprop: YesNo
    inference: str
    confidence: Literal["seen", "recalled", "derived"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of the field.

    ``attach(model, settings)`` changes a transformers model in place or wraps it, leaves
    ``requires_grad`` set on exactly what is trained, and returns the model to call. Models may
    be on the meta device. ``trainable(layout, settings)`` is the number of trained parameters as
    a formula, ``stored`` of those kept afterwards where that differs. ``merge(model)`` returns
    the plain model that computes the same. ``optimizer(model, make)`` is the method's own
    optimizer, made of the user's by ``make(parameters)`` or another; ``before_step(model, step)``
    is called before each update. ``ever_trained(model)`` are parameters that take turns, where
    those with ``requires_grad`` are not all. ``virtual_tokens`` names the setting by which
    sequences get longer. ``unavailable`` says why a method that is listed cannot be run, and what
    it would need.
    """

    name: str
    title: str
    family: Family
    year: int
    citation: str
    axes: Axes
    attach: Attach = field(repr=False)
    trainable: Callable[[Layout, Settings], int] = field(repr=False)
    stored: Callable[[Layout, Settings], int] | None = field(default=None, repr=False)
    hyperparameters: tuple[Hyperparameter, ...] = ()
    merge: Callable[[Any], Any] | None = field(default=None, repr=False)
    optimizer: Callable[[Any, MakeOptimizer], Any] | None = field(default=None, repr=False)
    before_step: Callable[[Any, int], None] | None = field(default=None, repr=False)
    ever_trained: Callable[[Any], Iterable[Any]] | None = field(default=None, repr=False)
    rules: tuple[str, ...] = ()
    quantization: Quantization | None = None
    quantized_base: bool = False
    several: bool = False
    virtual_tokens: str | None = None
    unavailable: str = ""

    @property
    def mergeable(self) -> bool:
        """Whether the trained change can be folded into the weights."""
        return self.merge is not None

    @property
    def defaults(self) -> dict[str, Any]:
        """Every hyperparameter with its default."""
        return {parameter.name: parameter.default for parameter in self.hyperparameters}

    @property
    def size(self) -> str | None:
        """The setting by which its tensors grow, as a rank, where there is one."""
        return next((p.name for p in self.hyperparameters if p.shapes == "linear"), None)

    def same_shapes(self, spec: MethodSpec) -> MethodSpec:
        """The spec to stand for all with the same tensors and kernels: what matters is left."""
        known = {parameter.name: parameter for parameter in self.hyperparameters}
        kept = {}
        for name, value in spec.settings:
            told = known[name].same_shapes(value) if name in known else value
            if name not in known or told != known[name].default:
                kept[name] = told
        return MethodSpec(name=spec.name).with_settings(**kept)

    def settings(self, spec: MethodSpec) -> dict[str, Any]:
        """The defaults with the user's changes.

        Raises:
            UnsupportedError: the method is listed but cannot be run.
            UsageError: a hyperparameter that the method does not have, or a value it refuses.
        """
        if self.unavailable:
            raise UnsupportedError(f"{self.name} cannot be run: {self.unavailable}")
        known = {parameter.name: parameter for parameter in self.hyperparameters}
        for name, value in dict(spec.settings).items():
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                raise UsageError(f"{self.name} has no setting '{name}'; it has: {listed}")
            if known[name].choices and value not in known[name].choices:
                allowed = ", ".join(map(str, known[name].choices))
                raise UsageError(f"{self.name}: {name} is {value!r}; it can be: {allowed}")
        return {**self.defaults, **dict(spec.settings)}
