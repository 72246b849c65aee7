"""LoRETTA_rep: LoRA whose factors are tensor trains (Yang et al. 2024, arXiv 2402.11417).

Each factor, width x r, is a tensor over up to three modes of the width and one of r, and is kept
as a train of cores (t, n, t), t at the ends being 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from peftadvisor.methods.adapters.tensor_train import contracted, core_shapes, modes, train_of
from peftadvisor.methods.base import Axes, Hyperparameter, Method, Settings
from peftadvisor.methods.peft_backed import QUERY_VALUE
from peftadvisor.methods.reparametrization.beside import attach_beside, merge_beside
from peftadvisor.methods.sites import Linear

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Layout


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put low-rank updates beside the layers, by default query and value.

    Raises:
        UnsupportedError: the model has no such projections.
    """
    return attach_beside(model, settings, _update)


def cores(width: int, settings: Settings) -> list[tuple[int, int, int]]:
    """Shapes of the cores of one factor, the last one that of r."""
    return core_shapes([*modes(width), settings["rank"]], settings["tt_rank"])


def _update(linear: Linear, settings: Mapping[str, Any]) -> Any:
    from torch import nn

    class Update(nn.Module):
        """B·A·x; the last core of B starts at zero."""

        def __init__(self) -> None:
            super().__init__()
            self.a = train_of(cores(linear.inputs, settings), linear.inputs**-0.5)
            self.b = train_of(cores(linear.outputs, settings))
            nn.init.zeros_(self.b[-1])

        def factor(self, name: str) -> Any:
            return contracted(getattr(self, name)).view(-1, settings["rank"])

        def forward(self, x: Any) -> Any:
            inner = x.to(self.get_parameter("a.0").dtype) @ self.factor("a")
            return inner @ self.factor("b").T * (settings["alpha"] / settings["rank"])

        def matrix(self) -> Any:
            scale = settings["alpha"] / settings["rank"]
            return self.factor("b") @ self.factor("a").T * scale

    return Update()


def trainable(layout: Layout, settings: Settings) -> int:
    """t·n·t for each core of both factors per layer, t at the ends being 1; a head whole."""
    chosen = layout.targets(settings["target_modules"], QUERY_VALUE)
    widths = [width for x in chosen for width in (x.inputs, x.outputs)]
    return layout.head + sum(prod(core) for width in widths for core in cores(width, settings))


LORETTA_REP = Method(
    name="loretta-rep",
    title="LoRETTA_rep: LoRA factors as tensor trains",
    family="reparametrization",
    year=2024,
    citation="Yang et al. 2024, arXiv 2402.11417",
    axes=Axes("yes", "yes", "no", "none", "derived"),
    hyperparameters=(
        Hyperparameter("rank", 8, 4, 64, shapes="linear"),
        Hyperparameter("tt_rank", 5, 2, 20, source="LoRETTA paper"),
        Hyperparameter("alpha", 16, 8, 64, shapes="none"),
        Hyperparameter("target_modules", None, rule="query and value by default, as for lora"),
    ),
    attach=attach,
    trainable=trainable,
    merge=merge_beside,
    quantized_base=True,
    several=True,
)
