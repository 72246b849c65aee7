"""A run that is measured: the model, its method, its optimizer, and a stream of micro-batches.

It is what the simulator traces, step for step, on tensors that hold numbers: random weights and
one random batch again and again, or the weights of a checkpoint and batches of the user's texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Literal

import torch
from torch.optim import AdamW, Optimizer

from peftadvisor.errors import UnsupportedError
from peftadvisor.methods import find_method
from peftadvisor.profilers.checkpoints import load_model
from peftadvisor.profilers.quantizing import beside_weights, quantized_model
from peftadvisor.profilers.texts import TextBatch, longest
from peftadvisor.simulator.batches import Batch, make_batch, task_of
from peftadvisor.simulator.build import TORCH_DTYPES, build_model
from peftadvisor.simulator.optimizers import make_optimizer
from peftadvisor.simulator.quantized import require_quantizable
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the user brings: a folder of weights, micro-batches of texts and their file, or none."""

    checkpoint: str | None = None
    data: str | None = None
    texts: tuple[TextBatch, ...] = ()

    @property
    def even(self) -> bool:
        """Whether all batches are of one length."""
        return len({(batch.seq_len, batch.target_len) for batch in self.texts}) <= 1

    @property
    def names(self) -> dict[str, str]:
        """What of it has a name."""
        named = {"checkpoint": self.checkpoint, "data": self.data}
        return {what: name for what, name in named.items() if name is not None}

    def __str__(self) -> str:
        said = [f"weights of {self.checkpoint}"] if self.checkpoint else []
        if self.texts:
            lengths = sorted(batch.seq_len for batch in self.texts)
            batches = "1 batch" if len(lengths) == 1 else f"{len(lengths)} batches"
            said.append(f"{batches} of {self.data}, {lengths[0]} to {lengths[-1]} tokens long")
        return ", ".join(said)


RANDOM = Given()


class Workload:
    """One run on real tensors.

    The micro-batches are those of ``given.texts`` in turn, or one random one. They may differ in
    length: a step takes the time of the batches it meets, but memory and FLOPs are those of the
    longest, ``batch``, which ``hold_longest`` makes every micro-batch from then on.

    Raises:
        UsageError: the model or the combination cannot be built, or not on this device, or the
            checkpoint cannot be loaded.
    """

    def __init__(
        self,
        model: ModelSpec,
        method: MethodSpec,
        training: TrainingSpec,
        device: str = "cpu",
        given: Given = RANDOM,
    ) -> None:
        self.method = find_method(method.name)
        self.training, self.device, self.given = training, torch.device(device), given
        require_quantizable(self.method, training.quantization)
        _require_real(training)
        torch.manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            base = _base(model, training, device, given)
            batches, self.batch = _batches(base, training, self.device, given)
            if training.gradient_checkpointing != "none":
                reentrant = training.gradient_checkpointing == "reentrant"
                base.gradient_checkpointing_enable({"use_reentrant": reentrant})
                base.enable_input_require_grads()
            self.model: Any = self.method.attach(base, self.method.settings(method))
        self._stream = cycle(batches)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer()
        self.steps = 0

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step, padding included; the mean where batches differ."""
        t = self.training
        rows = t.micro_batch_size * t.gradient_accumulation_steps
        lengths = [batch.seq_len for batch in self.given.texts] or [t.seq_len]
        return round(rows * sum(lengths) / len(lengths))

    def hold_longest(self) -> Workload:
        """Make every micro-batch from now on the longest, and return this workload."""
        self._stream = cycle([self.batch])
        return self

    def static_bytes(self) -> int:
        """Bytes of all that the model holds, each storage once."""
        return static_bytes(self.model)

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
                held = {n: t.to(self.device, copy=True) for n, t in next(self._stream).items()}
                with self._autocast():
                    out = self.model(**held)
                loss = out.loss
                if self.training.loop == "trainer":
                    del out
            with mark("backward"):
                torch.autograd.backward([loss])

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


def _require_real(training: TrainingSpec) -> None:
    """What is installed here is measured, nothing that is emulated."""
    for name, real in (("loss", "torch"), ("transformers", "5")):
        value = getattr(training, name)
        if value != real:
            raise UnsupportedError(f"--{name} {value} is simulated only; use --engine simulate")


def _base(model: ModelSpec, training: TrainingSpec, device: str, given: Given) -> Any:
    if training.quantization != "none":
        return quantized_model(model, training, device, given.checkpoint)
    if given.checkpoint is None:
        return build_model(model, training, device)
    return load_model(given.checkpoint, model, training, device)


def _batches(
    model: Any, training: TrainingSpec, device: torch.device, given: Given
) -> tuple[list[Batch], Batch]:
    """All batches, those of texts on the host, and the longest on the device."""
    if not given.texts:
        batch = real_batch(model, training, device)
        return [batch], batch
    task = task_of(model).name
    most = longest(given.texts).tensors(task)
    return (
        [batch.tensors(task) for batch in given.texts],
        {name: tensor.to(device) for name, tensor in most.items()},
    )


def static_bytes(model: Any) -> int:
    """Bytes of all parameters, buffers and scales of a model, each storage once."""
    tensors = [*model.parameters(), *model.buffers(), *beside_weights(model)]
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(held.values())


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


__all__ = [
    "RANDOM",
    "TORCH_DTYPES",
    "Given",
    "Mark",
    "Phase",
    "Workload",
    "real_batch",
    "real_optimizer",
    "static_bytes",
]
