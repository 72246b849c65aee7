"""The training loop that is simulated: load, then two optimizer steps, watched by a tracer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from peftadvisor.methods import find_method
from peftadvisor.methods.base import Method
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.autocast import (
    MetaAutocast,
    WeightCache,
    autocast,
    autocast_kernels,
)
from peftadvisor.simulator.batches import make_batch
from peftadvisor.simulator.build import Stack, build_model, stacks_of
from peftadvisor.simulator.cuda_kernels import WORKSPACES, device_kernels
from peftadvisor.simulator.losses import use_loss
from peftadvisor.simulator.meta_kernels import missing_kernels
from peftadvisor.simulator.older import keep_cache, unfuse_experts
from peftadvisor.simulator.optimizers import make_optimizer
from peftadvisor.simulator.quantized import quantize_base, require_quantizable
from peftadvisor.simulator.trace import NO_LAYER, Owner, Phase, Segment, Trace, layer_tag
from peftadvisor.simulator.tracer import Tracer
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model with its method attached, ready to train: what the tracer will watch.

    ``base`` is the transformers model inside, ``base_parameters`` the identities of the
    parameters that it had before the method came.
    """

    model: nn.Module
    base: nn.Module
    method: Method
    stacks: tuple[Stack, ...]
    base_parameters: frozenset[int]


def prepare(spec: ModelSpec, method: MethodSpec, training: TrainingSpec) -> Prepared:
    """Build the model, enable checkpointing as the user would, and attach the method.

    Raises:
        UsageError: the model or the combination cannot be built.
    """
    chosen = find_method(method.name)
    settings = chosen.settings(method)
    require_quantizable(chosen, training.quantization)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base: Any = build_model(spec, training)
        stacks = tuple(stacks_of(base))
        if training.transformers != "5":
            unfuse_experts(base)
        if training.quantization != "none":
            quantize_base(base, training)
        use_loss(base, training)
        parameters = frozenset(id(p) for p in base.parameters())
        if training.gradient_checkpointing != "none":
            reentrant = training.gradient_checkpointing == "reentrant"
            base.gradient_checkpointing_enable({"use_reentrant": reentrant})
            base.enable_input_require_grads()
        model = chosen.attach(base, settings)
        if training.transformers != "5" and training.gradient_checkpointing != "none":
            keep_cache(base, model)
    return Prepared(model, base, chosen, stacks, parameters)


def simulate(spec: ModelSpec, method: MethodSpec, training: TrainingSpec, device: Device) -> Trace:
    """Run two optimizer steps on shapes alone and return everything that was held and computed.

    Raises:
        UsageError: the model or the combination cannot be built.
    """
    return trace_run(prepare(spec, method, training), training, device)


def trace_run(prepared: Prepared, training: TrainingSpec, device: Device) -> Trace:
    """Trace two optimizer steps of a prepared model; it can be traced again afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Run(prepared, training, device).trace()


class Run:
    """One traced run."""

    def __init__(self, prepared: Prepared, training: TrainingSpec, device: Device) -> None:
        self.prepared = prepared
        self.model = prepared.model
        self.training = training
        self.stacks = prepared.stacks
        self.device = device
        self.casts = WeightCache()
        self.tracer = Tracer(
            all_real=not training.padded,
            workspaces=WORKSPACES if device.capability else {},
            vocabulary=_vocabulary(prepared.base),
        )

    def trace(self) -> Trace:
        """Trace two optimizer steps, the second with a further micro-batch."""
        with self.watched():
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            optimizer = self._optimizer(parameters)
            for micro, update in (
                ((Segment.STEP_1,), Segment.UPDATE_1),
                ((Segment.STEP_2, Segment.ACCUMULATE), Segment.UPDATE_2),
            ):
                for segment in micro:
                    self._micro_batch(segment)
                self._own_all((p.grad for p in parameters), Owner.GRADIENT)
                self._update(optimizer, parameters, update)
        return self._finish()

    @contextmanager
    def watched(self) -> Iterator[Tracer]:
        """Load the model and trace what is run inside, with the device's kernels."""
        with ExitStack() as stack:
            stack.enter_context(device_kernels(self.device))
            stack.enter_context(missing_kernels())
            stack.enter_context(patch("torch.autocast", MetaAutocast))
            if self.training.amp:
                stack.enter_context(autocast_kernels(self.casts))
            for hook in self._layer_hooks():
                stack.callback(hook.remove)
            self._load()
            stack.enter_context(self.tracer)
            yield self.tracer
            self.tracer.close()

    def _optimizer(self, parameters: list[Any]) -> torch.optim.Optimizer:
        own, make = self.prepared.method.optimizer, partial(make_optimizer, self.training)
        return own(self.model, make) if own else make(parameters)

    def _load(self) -> None:
        """Weights, adapters and buffers, in the order in which the model holds them."""
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            owner = Owner.WEIGHT
            if id(tensor) not in self.prepared.base_parameters and isinstance(tensor, nn.Parameter):
                owner = Owner.ADAPTER
            self.tracer.own(tensor, owner, _tag_of(name, self.stacks))

    def _micro_batch(self, segment: Segment) -> None:
        tracer = self.tracer
        tracer.segment, tracer.phase, tracer.layer = segment, Phase.FORWARD, NO_LAYER
        batch = make_batch(self.prepared.base, self.training)
        for tensor in batch.values():
            tracer.own(tensor, Owner.INPUT)
        with self._autocast():
            out = self.model(**batch)
            loss = out.loss
        if self.training.loop == "trainer":
            del out
        self._own_live_as_activation(segment)
        tracer.phase, tracer.layer = Phase.BACKWARD, NO_LAYER
        torch.autograd.backward([loss])
        tracer.layer = NO_LAYER
        del loss, batch

    def _autocast(self) -> AbstractContextManager[None]:
        if not self.training.amp:
            return nullcontext()
        low = torch.float16 if self.training.dtype == "fp16" else torch.bfloat16
        return autocast(low, self.casts)

    def _own_live_as_activation(self, segment: Segment) -> None:
        owners = self.tracer.trace.storage_owner
        for row in self.tracer.live_storages():
            if owners[row] == Owner.TEMPORARY:
                owners[row] = Owner.ACTIVATION

    def _own_all(self, tensors: Iterable[torch.Tensor | None], owner: Owner) -> None:
        for tensor in tensors:
            if tensor is not None:
                self.tracer.own(tensor, owner)

    def _update(
        self, optimizer: torch.optim.Optimizer, parameters: list[Any], segment: Segment
    ) -> None:
        tracer = self.tracer
        tracer.segment, tracer.phase, tracer.layer = segment, Phase.OPTIMIZER, NO_LAYER
        if self.training.max_grad_norm:
            clip_gradients(
                [p.grad for p in parameters if p.grad is not None], self.training.max_grad_norm
            )
        if self.prepared.method.before_step:
            self.prepared.method.before_step(self.model, 0)
        optimizer.step()
        for state in optimizer.state.values():
            self._own_all(
                (t for t in state.values() if isinstance(t, torch.Tensor)), Owner.OPTIMIZER
            )
        optimizer.zero_grad(set_to_none=True)

    def _layer_hooks(self) -> Iterable[Any]:
        """Keep the tracer told which layer runs: modules in forward, gradients in backward."""
        for index, stack in enumerate(self.stacks):
            layers: Any = self.prepared.base.get_submodule(stack.path)
            for number, layer in enumerate(layers):
                tag = _unit_tag(index, stack, number)
                enter, leave = self._hooks(tag, last=number == len(layers) - 1)
                yield layer.register_forward_pre_hook(enter)
                yield layer.register_forward_hook(leave)

    def _hooks(self, tag: int, last: bool) -> tuple[Callable[..., None], Callable[..., None]]:
        tracer = self.tracer

        def entered(*_: Any) -> None:
            tracer.layer = tag

        def left(_module: Any, _args: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
                hidden.register_hook(entered)
            if last and tracer.phase == Phase.FORWARD:
                tracer.layer = NO_LAYER

        return entered, left

    def _finish(self) -> Trace:
        trace = self.tracer.trace
        trace.stack_units = tuple(units_of(stack) for stack in self.stacks)
        trace.parameters_by_tag = parameters_by_tag(self.prepared)
        return trace


def parameters_by_tag(prepared: Prepared) -> dict[int, tuple[int, int, int]]:
    """Per layer tag: parameters in all, trained, and bytes of the trained."""
    counts: dict[int, tuple[int, int, int]] = {}
    for name, p in prepared.model.named_parameters():
        tag = _tag_of(name, prepared.stacks)
        count, trained, stored = counts.get(tag, (0, 0, 0))
        counts[tag] = (
            count + getattr(p, "logical_numel", p.numel()),
            trained + p.numel() * p.requires_grad,
            stored + p.numel() * p.element_size() * p.requires_grad,
        )
    return counts


def units_of(stack: Stack) -> int:
    """How many units (layers, or periods of unlike layers) follow the stack's prefix."""
    return (stack.layers - stack.prefix) // stack.period


def _tag_of(name: str, stacks: tuple[Stack, ...]) -> int:
    for index, stack in enumerate(stacks):
        _, found, rest = name.partition(stack.path + ".")
        if found and rest.split(".")[0].isdigit():
            return _unit_tag(index, stack, int(rest.split(".")[0]))
    return NO_LAYER


def _unit_tag(index: int, stack: Stack, layer: int) -> int:
    unit = (layer - stack.prefix) // stack.period
    return layer_tag(index, unit) if unit >= 0 else NO_LAYER


def _vocabulary(model: Any) -> frozenset[int]:
    """Last dimensions that mark a tensor as logits."""
    text = model.config.get_text_config() if hasattr(model.config, "get_text_config") else None
    head = model.get_output_embeddings()
    sizes = (getattr(text, "vocab_size", None), getattr(head, "out_features", None))
    return frozenset(n for n in sizes if n)


def clip_gradients(gradients: list[torch.Tensor], max_norm: float) -> None:
    """Clip by global norm with the multi-tensor kernels, as torch does on CUDA."""
    norms = torch._foreach_norm(gradients, 2.0)
    total = torch.linalg.vector_norm(torch.stack(norms))
    factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)
    torch._foreach_mul_(gradients, factor)
