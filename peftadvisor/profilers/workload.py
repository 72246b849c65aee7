"""A run that is measured: the model with random weights, its method, its optimizer, one batch.

It is what the simulator traces, step for step, on tensors that hold numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch.optim import AdamW, Optimizer

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods import find_method
from peftadvisor.simulator.batches import Batch, make_batch, task_of
from peftadvisor.simulator.build import TORCH_DTYPES, build_model
from peftadvisor.simulator.optimizers import make_optimizer
from peftadvisor.simulator.step import clip_gradients
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

Phase = Literal["load", "forward", "backward", "optimizer"]
Mark = Callable[[Phase], AbstractContextManager[Any]]
"""Opens a phase of the run: what happens inside belongs to it."""

CLASSES = ("classifier", "image")
SEED = 0


def unmarked(_: Phase) -> AbstractContextManager[Any]:
    """A mark that nobody reads."""
    return nullcontext()


class Workload:
    """One run on real tensors.

    Raises:
        UsageError: the model or the combination cannot be built, or not on this device.
    """

    def __init__(
        self, model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: str = "cpu"
    ) -> None:
        self.method = find_method(method.name)
        self.training, self.device = training, torch.device(device)
        _require_plain(training)
        torch.manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base: Any = build_model(model, training, device)
            self.batch = real_batch(base, training, self.device)
            if training.gradient_checkpointing != "none":
                reentrant = training.gradient_checkpointing == "reentrant"
                base.gradient_checkpointing_enable({"use_reentrant": reentrant})
                base.enable_input_require_grads()
            self.model: Any = self.method.attach(base, self.method.settings(method))
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer()
        self.steps = 0

    def static_bytes(self) -> int:
        """Bytes of all parameters and buffers, each storage once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(held.values())

    def step(self, mark: Mark = unmarked) -> None:
        """One optimizer step, with all its micro-batches."""
        for _ in range(self.training.gradient_accumulation_steps):
            self._micro_batch(mark)
        with mark("optimizer"):
            if self.training.max_grad_norm:
                gradients = [p.grad for p in self.trained if p.grad is not None]
                clip_gradients(gradients, self.training.max_grad_norm)
            if self.method.before_step:
                self.method.before_step(self.model, self.steps)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def _micro_batch(self, mark: Mark) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mark("forward"):
                held = {name: tensor.clone() for name, tensor in self.batch.items()}
                with self._autocast():
                    out = self.model(**held)
            with mark("backward"):
                torch.autograd.backward([out.loss])

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self.training.amp:
            return nullcontext()
        low = torch.float16 if self.training.dtype == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, low)

    def _optimizer(self) -> Optimizer:
        make = partial(real_optimizer, self.training)
        if self.method.optimizer:
            made: Optimizer = self.method.optimizer(self.model, make)
            return made
        return make(self.trained)


def real_optimizer(training: TrainingSpec, parameters: list[Any]) -> Optimizer:
    """The optimizer that the settings name, from torch and bitsandbytes.

    Raises:
        UnsupportedError: it needs bitsandbytes, which is not installed.
    """
    if training.optimizer == "adamw-fused":
        return AdamW(parameters, fused=True)
    if "8bit" not in training.optimizer:
        return make_optimizer(training, parameters)
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise UnsupportedError(
            f"{training.optimizer} is measured with bitsandbytes; pip install bitsandbytes"
        ) from error
    paged = training.optimizer.startswith("paged")
    made: Optimizer = (optim.PagedAdamW8bit if paged else optim.AdamW8bit)(parameters)
    return made


def real_batch(model: Any, training: TrainingSpec, device: torch.device) -> Batch:
    """The micro-batch that the simulator makes of shapes, filled at random."""
    text = model.config.get_text_config()
    classes = task_of(model).name in CLASSES
    vocabulary = model.config.num_labels if classes else text.vocab_size

    def filled(name: str, shape: torch.Tensor) -> torch.Tensor:
        if shape.is_floating_point():
            return torch.randn(shape.shape, dtype=shape.dtype, device=device)
        if name == "attention_mask":
            return torch.ones(shape.shape, dtype=shape.dtype, device=device)
        high = vocabulary if name == "labels" else text.vocab_size
        return torch.randint(high, shape.shape, dtype=shape.dtype, device=device)

    return {name: filled(name, shape) for name, shape in make_batch(model, training).items()}


def _require_plain(training: TrainingSpec) -> None:
    if training.quantization != "none":
        raise UnsupportedError(
            f"a {training.quantization} base is simulated only so far; use --engine simulate"
        )


__all__ = ["TORCH_DTYPES", "Mark", "Phase", "Workload", "real_batch", "real_optimizer"]
