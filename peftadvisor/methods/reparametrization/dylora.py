"""DyLoRA: LoRA trained for every rank up to one at a time (arXiv 2210.07558).

Valipour et al. 2022. Each step draws a rank b for the whole model and uses the first b rows of A
and columns of B, scaled by alpha / b; afterwards any rank can be cut out. What lies beyond b is
multiplied by zero, so every step takes the memory of the full rank, and a forward pass that
checkpointing repeats is the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftadvisor.methods.base import Method
from peftadvisor.methods.reparametrization import lora
from peftadvisor.methods.reparametrization.beside import attach_beside, merge_beside
from peftadvisor.methods.sites import Linear


def attach(model: Any, settings: Mapping[str, Any]) -> Any:
    """Freeze the model and put nested factors beside query and value projections.

    Raises:
        UnsupportedError: the model has no such projections.
    """
    return attach_beside(model, settings, _nested)


def draw_rank(model: Any, step: int) -> None:
    """Choose the rank of the next step, from 1 to the full one; the same for the same step."""
    for module in model.modules():
        if hasattr(module, "kept_ranks"):
            module.use(random.Random(step).randint(1, module.rank))


def _nested(linear: Linear, settings: Mapping[str, Any]) -> Any:
    import torch
    from torch import nn

    class Nested(nn.Module):
        """B·(kept · A·x), kept being alpha / b for the first b ranks and 0 for the rest."""

        kept_ranks: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.rank, self.alpha = settings["rank"], settings["alpha"]
            self.a = nn.Linear(linear.inputs, self.rank, bias=False, dtype=torch.float32)
            self.b = nn.Linear(self.rank, linear.outputs, bias=False, dtype=torch.float32)
            nn.init.zeros_(self.b.weight)
            self.dropout = nn.Dropout(settings["dropout"])
            full = torch.full((self.rank,), self.alpha / self.rank)
            self.register_buffer("kept_ranks", full, persistent=False)

        def use(self, rank: int) -> None:
            self.kept_ranks.zero_()
            self.kept_ranks[:rank].fill_(self.alpha / rank)

        def forward(self, x: Any) -> Any:
            inner = self.a(self.dropout(x.to(self.a.weight.dtype)))
            return self.b(inner * (self.kept_ranks if self.training else self.alpha / self.rank))

        def matrix(self) -> Any:
            return self.b.weight @ self.a.weight * (self.alpha / self.rank)

    return Nested()


_HYPERPARAMETERS = tuple(
    replace(p, shapes="any") if p.name == "rank" else p for p in lora.HYPERPARAMETERS
)
"""Nothing grows evenly with the rank: each step draws how many are used."""

DYLORA = Method(
    name="dylora",
    title="DyLoRA on query and value projections",
    family="reparametrization",
    year=2022,
    citation="Valipour et al. 2022, arXiv 2210.07558",
    axes=replace(lora.AXES, confidence="derived"),
    hyperparameters=_HYPERPARAMETERS,
    attach=attach,
    trainable=lora.trainable,
    merge=merge_beside,
    before_step=draw_rank,
    quantized_base=True,
    several=True,
)
