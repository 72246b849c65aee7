"""The optimizers whose update is simulated, with the memory that each really takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.optim import SGD, AdamW, Optimizer

from peftadvisor.specs import TrainingSpec


class FusedAdamW(Optimizer):
    """AdamW in one kernel: states like the parameter, nothing temporary."""

    def __init__(self, params: Iterable[Any]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for p in _with_grad(self):
            state = self.state[p]
            if not state:
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            p.addcdiv_(state["exp_avg"], state["exp_avg_sq"])


class BlockwiseAdamW8bit(Optimizer):
    """AdamW with 8-bit block-wise states (Dettmers et al. 2021, arXiv 2110.02861).

    Two uint8 states, one fp32 maximum per block of 256 for each; tensors under 4,096 elements
    keep fp32 states. ``paged`` keeps the large states in unified memory, which can leave the GPU:
    they are counted on the device all the same, as they are while the update runs.
    """

    BLOCK = 256
    MIN_8BIT = 4096

    def __init__(self, params: Iterable[Any], paged: bool = False) -> None:
        super().__init__(params, {"paged": paged})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for p in _with_grad(self):
            state = self.state[p]
            if not state:
                state.update(self._new_state(p))
            p.mul_(1.0)

    def _new_state(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        if p.numel() < self.MIN_8BIT:
            return {
                "state1": torch.zeros_like(p, dtype=torch.float32),
                "state2": torch.zeros_like(p, dtype=torch.float32),
            }
        blocks = -(-p.numel() // self.BLOCK)
        empty = partial(torch.empty, device=p.device)
        return {
            "state1": torch.zeros_like(p, dtype=torch.uint8),
            "state2": torch.zeros_like(p, dtype=torch.uint8),
            "absmax1": empty(blocks, dtype=torch.float32),
            "absmax2": empty(blocks, dtype=torch.float32),
        }


def _with_grad(optimizer: Optimizer) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _adafactor(params: list[Any]) -> Optimizer:
    from transformers.optimization import Adafactor

    return Adafactor(params, lr=1e-3, scale_parameter=False, relative_step=False)


_OPTIMIZERS: Mapping[str, Callable[[list[Any]], Optimizer]] = {
    "adamw": partial(AdamW, lr=1e-4, foreach=True),
    "adamw-loop": partial(AdamW, lr=1e-4, foreach=False),
    "adamw-fused": FusedAdamW,
    "adamw-8bit": BlockwiseAdamW8bit,
    "paged-adamw-8bit": partial(BlockwiseAdamW8bit, paged=True),
    "adafactor": _adafactor,
    "sgd": partial(SGD, lr=1e-3, foreach=True),
}


def make_optimizer(training: TrainingSpec, parameters: list[Any]) -> Optimizer:
    """The optimizer that the training settings name, over the trained parameters."""
    return _OPTIMIZERS[training.optimizer](parameters)
