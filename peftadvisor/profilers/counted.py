"""What a run holds whatever it computes, counted on the model itself: a lower bound of its peak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import torch

from peftadvisor.profilers.quantizing import beside_weights

_STEP = {"fused": None, "foreach": False, "capturable": False}
"""Options of torch's optimizers that change no state, and that shapes alone cannot take."""
_TORCHS: Mapping[str, Callable[[list[Any]], Any]] = {
    "adamw_torch": torch.optim.AdamW,
    "adamw_torch_fused": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
"""What arguments call torch's own optimizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bytes of weights, and of the gradients and states of what is trained.

    All are held at once when the optimizer has stepped for the first time. ``left_out`` says what
    is not counted, since nobody can know it before.
    """

    weights_bytes: int
    gradient_bytes: int = 0
    optimizer_bytes: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Of all that is counted."""
        return self.weights_bytes + self.gradient_bytes + self.optimizer_bytes


def counted(model: Any, args: Any, optimizer: Any) -> Counted:
    """Count a model that is to be trained by an optimizer, None where there is none yet.

    Where the model is divided or moved while it trains only what is there is counted: weights.
    Only for torch's own optimizers is it known that they find all gradients at once. Of a model
    on several devices it is what is on the first.
    """
    weights = held_bytes(model)
    here = next(model.parameters()).device
    trained = [p for p in model.parameters() if p.requires_grad and p.device == here]
    if optimizer is None:
        named = str(getattr(args.optim, "value", args.optim))
        optimizer = _TORCHS[named](trained) if named in _TORCHS and trained else None
    divided = getattr(args, "fsdp", None) or getattr(args, "deepspeed", None)
    if divided or type(optimizer).__module__.partition(".")[0] != "torch":
        return Counted(weights_bytes=weights, left_out=("gradients", "optimizer states"))
    states = _states(optimizer, {id(p) for p in trained})
    return Counted(
        weights_bytes=weights,
        gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
        optimizer_bytes=states or 0,
        left_out=("optimizer states",) if states is None else (),
    )


def held_bytes(model: Any) -> int:
    """Bytes of parameters, buffers and scales, each storage once, also on the meta device.

    Of a model on several devices those on the first.
    """
    here = next(model.parameters()).device
    everywhere = [*model.parameters(), *model.buffers(), *beside_weights(model)]
    tensors = [tensor for tensor in everywhere if tensor.device == here]
    held = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())


def _states(optimizer: Any, chosen: Set[int]) -> int | None:
    """Bytes that the optimizer keeps after a step, by one on shapes alone; None if it cannot.

    ``chosen`` are the identities of the parameters that count. Counts of steps, which may stay on
    the host, are left out.
    """
    groups = []
    for group in optimizer.param_groups:
        shapes = [torch.empty_like(p, device="meta") for p in group["params"] if id(p) in chosen]
        for shape in shapes:
            shape.requires_grad_(True)
            shape.grad = torch.empty_like(shape)
        options = {name: value for name, value in _STEP.items() if name in group}
        groups.append({**group, **options, "params": shapes})
    try:
        stand_in = type(optimizer)(groups)
        stand_in.step()
    except Exception:  # an optimizer that needs numbers may raise anything
        return None
    states = [t for s in stand_in.state.values() for t in s.values() if torch.is_tensor(t)]
    return sum(t.numel() * t.element_size() for t in states if t.ndim)
