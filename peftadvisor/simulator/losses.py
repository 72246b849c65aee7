"""Losses of causal language models, other than transformers' own, with the memory that each takes.

Bytes per token with vocabulary V, where logits are in bf16 (2 V) and T is the number of tokens:

* ``torch``: an fp32 copy 4 V, log-softmax 4 V; in backward two gradients of 4 V while the
  log-softmax lives: 14 V in all, 12 V where the bf16 logits are let go of before.
* ``fused``: one kernel, whose gradient takes the place of the fp32 logits (Liger's and Unsloth's
  cross entropy): 6 V.
* ``fused-linear``: head and loss in one (Liger's fused linear cross entropy, Hsu et al. 2024,
  arXiv 2410.10989; cut cross entropy is smaller still): logits exist for a chunk of
  2^⌈log2(T / ⌈V / h⌉)⌉ tokens at a time, with h the hidden size; their gradients are made in
  forward.

transformers 4 shifted the logits by a copy before either of the first two (``older.logits_in``):
14 V and 10 V from 4.46 on, 12 V and 8 V up to 4.45, where the bf16 logits did not live on; 6 V and
4 V in models that left the logits in bf16. All are reached at the end of forward.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from peftadvisor.errors import UnsupportedError
from peftadvisor.simulator.older import Logits, logits_in
from peftadvisor.specs import TrainingSpec


def use_loss(model: Any, training: TrainingSpec) -> None:
    """Make a model compute its loss in the way that the settings name.

    Raises:
        UnsupportedError: the model computes its loss by code of its own.
    """
    loss, logits = training.loss, logits_in(model.config, training.transformers)
    if loss == "torch" and logits == "kept":
        return
    names = inspect.unwrap(type(model).forward).__code__.co_names
    if "loss_function" not in names or "labels" not in inspect.signature(model.forward).parameters:
        if loss == "torch":
            return  # what transformers 4 did is what 5 does
        raise UnsupportedError(
            f"{type(model).__name__} computes its loss by code of its own; use --loss torch"
        )
    head = model.get_output_embeddings()
    if loss == "fused-linear":
        model.set_output_embeddings(_Deferred(head))
        model.loss_function = _fused_linear(head)
        return
    model.loss_function = _Loss(loss == "fused", logits, training.amp, training.loop == "plain")


@dataclass(frozen=True, slots=True)
class _Loss:
    """The loss of [b, s, V] logits; ``held`` says whether the outputs live during backward."""

    fused: bool
    way: Logits
    amp: bool
    held: bool

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any
    ) -> torch.Tensor:
        wide = logits if self.way == "narrow" else logits.float()
        if self.way == "widened" and wide is not logits:
            logits.data = logits.new_empty(0)  # the model's code gave its name to the fp32 ones
        if self.way == "kept":
            rows, targets = wide.flatten(0, -2), _next(labels)
        else:
            rows = wide[..., :-1, :].contiguous().flatten(0, -2)
            targets = labels[..., 1:].reshape(-1)
        if self.fused and self.amp:
            rows = rows.float()  # inferred from published runs, not read in the kernels' code
        loss: torch.Tensor = (_FusedLoss.apply if self.fused else cross_entropy)(rows, targets)
        if self.way == "widened" and self.held:
            loss.outputs = wide  # type: ignore[attr-defined]
        return loss


def _next(labels: torch.Tensor) -> torch.Tensor:
    """The label that each position predicts."""
    return nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)


class _FusedLoss(torch.autograd.Function):
    """Cross entropy of [T, V] logits, whose storage becomes that of their gradient."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ctx.logits = logits
        return logits.new_empty(labels.shape, dtype=torch.float32).sum()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        logits, ctx.logits = ctx.logits, None  # autograd lets go of saved tensors, not of these
        return logits.mul_(grad), None


class _Deferred(nn.Module):
    """A head that hands the hidden states on: the loss multiplies them."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    @property
    def weight(self) -> Any:
        """The head's."""
        return self.head.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states."""
        return hidden


def _fused_linear(head: Any) -> Callable[..., torch.Tensor]:
    def loss(logits: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        hidden = logits.flatten(0, -2)
        made: torch.Tensor = _FusedLinear.apply(hidden, head.weight, _next(labels))
        return made

    return loss


class _FusedLinear(torch.autograd.Function):
    """Head and cross entropy of [T, h] hidden states, chunk by chunk, gradients in forward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        tokens, (vocabulary, width) = len(hidden), weight.shape
        rows = -(-tokens // -(-vocabulary // width))
        chunk = 1 << (rows - 1).bit_length()
        grad_hidden = torch.zeros_like(hidden)
        trained = weight.requires_grad
        grad_weight = torch.zeros_like(weight) if trained else None
        losses = hidden.new_empty(tokens, dtype=torch.float32)
        for start in range(0, tokens, chunk):
            part = slice(start, min(start + chunk, tokens))
            x = hidden[part].to(weight.dtype)
            logits = linear(x, weight)
            grad_hidden[part] = logits @ weight
            if grad_weight is not None:
                grad_weight += logits.t() @ x
        ctx.grads = grad_hidden, grad_weight
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        (hidden, weight), ctx.grads = ctx.grads, None
        return hidden.mul_(grad), None if weight is None else weight.mul_(grad), None
