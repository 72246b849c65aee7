"""What the hybrids share: low-rank changes beside query and value, in the dtype of the base."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods.additive.side import on_device
from peftadvisor.methods.reparametrization.beside import NAME, added_beside, chosen_layers

if TYPE_CHECKING:
    from peftadvisor.methods.sites import Linear


def add_beside(
    model: Any, make: Callable[[Linear], Any], wanted: Callable[[Linear], bool] = lambda _: True
) -> None:
    """Put what ``make`` makes beside each query and value projection that is wanted.

    Raises:
        UnsupportedError: the model has no such projections.
    """
    chosen = list(chosen_layers(model, None))
    if not chosen:
        raise UnsupportedError(
            f"{type(model).__name__} has no query and value projections; use parallel-adapter"
        )
    for linear, module in chosen:
        if wanted(linear):
            module.add_module(NAME, on_device(model, partial(make, linear)))
            module.register_forward_hook(added_beside)


def low_rank(inputs: int, outputs: int, rank: int) -> Any:
    """B·A·x with A of rank x inputs, and B zero at first."""
    from torch import nn

    class LowRank(nn.Module):
        """up(down(x)) in the dtype of its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Linear(inputs, rank, bias=False)
            self.up = nn.Linear(rank, outputs, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, hidden: Any) -> Any:
            return self.up(self.down(hidden.to(self.down.weight.dtype)))

    return LowRank()
