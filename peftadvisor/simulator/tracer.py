"""Watch every operator of a run on meta tensors and write down what a CUDA device would hold.

The tracer is a ``TorchDispatchMode``: it sees each operator below autograd, in forward, backward
and recomputation alike, computes only shapes, and follows every storage by weak reference until
its last user lets go. No device, no weights, no private API.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from peftadvisor.simulator.trace import NO_LAYER, Event, Owner, Phase, Segment, Trace

_ITEM = torch.ops.aten._local_scalar_dense.default
_TRACED_NAMESPACES = ("aten", "peftadvisor")
_LAYERED_PHASES = (Phase.FORWARD, Phase.LOSS, Phase.BACKWARD, Phase.RECOMPUTE)

Workspaces = dict[Any, Callable[..., Sequence[int]]]


class Tracer(TorchDispatchMode):
    """Record storages and kernels of everything that runs while the mode is active.

    Args:
        all_real: the answer to questions about data ("is the mask all ones?"), which meta
            tensors cannot give: True when batches hold no padding.
        workspaces: per operator, the sizes in bytes of the buffers that its CUDA kernel
            allocates and frees inside, as a function of the operator's arguments.
        vocabulary: sizes of the last dimension that mark a tensor as logits.
    """

    def __init__(
        self, *, all_real: bool, workspaces: Workspaces, vocabulary: frozenset[int]
    ) -> None:
        super().__init__()
        self.trace = Trace()
        self.segment = Segment.LOAD
        self.phase = Phase.LOAD
        self.layer = NO_LAYER
        self._all_real = all_real
        self._workspaces = workspaces
        self._vocabulary = vocabulary
        self._live: dict[int, tuple[int, Any]] = {}
        self._is_view: dict[Any, bool] = {}
        self._known: dict[Any, _Operator] = {}
        self._closed = False

    # -- storages ---------------------------------------------------------------------------

    def storage_id(self, tensor: torch.Tensor) -> int | None:
        """The row of the tensor's storage in the trace, or None if it is not followed."""
        entry = self._live.get(tensor.untyped_storage()._cdata)
        return entry[0] if entry else None

    def close(self) -> None:
        """Stop writing: what dies from now on is the simulation's own end, not the run's."""
        self._closed = True

    def live_storages(self) -> list[int]:
        """Rows of all storages that are alive now."""
        return [row for row, _ in self._live.values()]

    def own(self, tensor: torch.Tensor, owner: Owner, tag: int | None = None) -> None:
        """Name the owner (and the layer) of a tensor's storage; follow it if nobody did."""
        self._follow(tensor, NO_LAYER if tag is None else tag)
        row = self.storage_id(tensor)
        if row is not None:
            self.trace.storage_owner[row] = owner
            if tag is not None:
                self.trace.storage_tag[row] = tag

    def _event(self, kind: Event, ref: int, tag: int) -> None:
        trace = self.trace
        trace.event_kind.append(kind)
        trace.event_ref.append(ref)
        trace.event_tag.append(tag)
        trace.event_segment.append(self.segment)
        trace.event_phase.append(self._phase_now())

    def _phase_now(self) -> Phase:
        """Backward runs without gradients, except where a checkpoint is computed again."""
        again = self.phase == Phase.BACKWARD and torch.is_grad_enabled()
        return Phase.RECOMPUTE if again else self.phase

    def _birth(self, size_bytes: int, owner: Owner, tag: int) -> int:
        trace = self.trace
        row = len(trace.storage_bytes)
        trace.storage_bytes.append(size_bytes)
        trace.storage_owner.append(owner)
        trace.storage_tag.append(tag)
        self._event(Event.ALLOC, row, tag)
        return row

    def _death(self, key: int, row: int) -> None:
        self._live.pop(key, None)
        if self._closed:
            return
        layered = self.layer != NO_LAYER and self.phase in _LAYERED_PHASES
        self._event(Event.FREE, row, self.layer if layered else self.trace.storage_tag[row])

    def _follow(self, tensor: torch.Tensor, tag: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or not tensor.is_meta:
            return
        shape = tensor.shape
        is_logits = len(shape) > 1 and shape[-1] in self._vocabulary and self.phase != Phase.LOAD
        row = self._birth(storage.nbytes(), Owner.LOGITS if is_logits else Owner.TEMPORARY, tag)
        self._live[key] = (row, weakref.ref(storage, lambda _: self._death(key, row)))

    # -- operators --------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on shapes and record it."""
        kwargs = kwargs or {}
        if func is _ITEM and args[0].is_meta:
            return self._all_real if args[0].dtype == torch.bool else 0
        if self._makes_view(func) or func.namespace not in _TRACED_NAMESPACES:
            return func(*args, **kwargs)
        inputs: list[torch.Tensor] = []
        key = (func, _signature(args, inputs), _signature(tuple(kwargs.items()), inputs))
        known = self._known.get(key) if all(t.is_meta for t in inputs) else None
        if known is None or not known.outputs:  # what runs on the CPU must run
            out = func(*args, **kwargs)
            known = self._known[key] = self._learn(func, args, kwargs, inputs, out)
        else:
            out = known.build(inputs)
        if known.outputs:
            self._record(known, inputs, list(_tensors((out,))))
        return out

    def _learn(
        self, func: Any, args: Any, kwargs: Any, inputs: list[torch.Tensor], out: Any
    ) -> _Operator:
        """What this operator does to inputs of this signature, worked out once."""
        outputs = [t for t in _tensors((out,)) if t.is_meta]
        counter = flop_registry.get(func.overloadpacket)
        buffers = self._workspaces.get(func)
        touched = tuple(n for n in map(_touched_bytes, [*inputs, *outputs]) if n)
        mutated = not outputs and any(t.is_meta for t in inputs)  # in-place foreach returns None
        flops = int(counter(*args, **kwargs, out_val=out)) if counter else 0
        shapes = [t.shape for t in inputs if t.dim() > 1][:2] if flops else []
        return _Operator(
            name=_kernel_name(func, outputs or inputs),
            result=_result_of(out, inputs),
            outputs=len(outputs) or int(mutated),
            flops=flops,
            touched=touched,
            shapes=tuple(int(n) for shape in shapes for n in shape),
            buffers=tuple(n for n in buffers(*args, **kwargs) if n) if buffers else (),
        )

    def _record(
        self, known: _Operator, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> None:
        trace = self.trace
        tags = self._tags(inputs, outputs)
        trace.kernel_name.append(known.name)
        trace.kernel_flops.append(known.flops)
        trace.kernel_touched.append(known.touched)
        trace.kernel_shapes.append(known.shapes)
        self._event(Event.KERNEL, len(trace.kernel_name) - 1, tags[0])
        for tensor, tag in zip(outputs, tags, strict=False):
            self._follow(tensor, tag)
        rows = [self._birth(size, Owner.WORKSPACE, tags[0]) for size in known.buffers]
        for row in rows:
            self._event(Event.FREE, row, tags[0])

    def _makes_view(self, func: Any) -> bool:
        known = self._is_view.get(func)
        if known is None:
            returns = func._schema.returns
            known = bool(returns) and any(
                r.alias_info is not None and not r.alias_info.is_write for r in returns
            )
            known = known or func is torch.ops.aten._unsafe_view.default
            self._is_view[func] = known
        return known

    def _tags(self, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> list[int]:
        """Layer of each output: where the run is, else the layer of what it was made from."""
        if self.layer != NO_LAYER and self.phase in _LAYERED_PHASES:
            return [self.layer] * max(1, len(outputs))
        if not outputs:
            outputs = inputs[:1]
        if len(outputs) > 1 and len(inputs) >= len(outputs):  # one output per input (foreach)
            return [self._tag_of(tensor) for tensor in inputs[: len(outputs)]]
        return [self._tag_of(inputs[0]) if inputs else NO_LAYER] * max(1, len(outputs))

    def _tag_of(self, tensor: torch.Tensor) -> int:
        row = self.storage_id(tensor) if tensor.is_meta else None
        return NO_LAYER if row is None else self.trace.storage_tag[row]


@dataclass(frozen=True, slots=True)
class _Operator:
    """An operator on inputs of one signature: its cost and the shape of its result."""

    name: str
    result: Any
    outputs: int
    flops: int
    touched: tuple[int, ...]
    shapes: tuple[int, ...]
    buffers: tuple[int, ...]

    def build(self, inputs: list[torch.Tensor]) -> Any:
        """The result for other inputs of the same signature: new tensors, or the inputs."""
        return _build(self.result, inputs)


def _signature(values: Any, found: list[torch.Tensor]) -> Any:
    """Arguments as a hashable key; tensors by shape, strides and dtype, collected in ``found``."""
    key: list[Any] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
            key.append((value.shape, value.stride(), value.dtype, value.is_meta))
        elif isinstance(value, (list, tuple)):
            key.append(_signature(value, found))
        else:
            key.append((value, type(value)))
    return tuple(key)


def _result_of(out: Any, inputs: list[torch.Tensor]) -> Any:
    """How to make this result again: an input's index, a tensor's layout, or a plain value."""
    if isinstance(out, torch.Tensor):
        same = [i for i, tensor in enumerate(inputs) if tensor is out]
        if same:
            return same[0]
        elements = out.untyped_storage().nbytes() // out.element_size()
        return out.shape, out.stride(), out.dtype, out.device, elements
    if isinstance(out, (list, tuple)):
        return type(out), [_result_of(item, inputs) for item in out]
    return None, out


def _build(result: Any, inputs: list[torch.Tensor]) -> Any:
    if isinstance(result, int):
        return inputs[result]
    if len(result) == 5:
        shape, stride, dtype, device, elements = result
        if elements == shape.numel():
            return torch.empty_strided(shape, stride, dtype=dtype, device=device)
        return torch.empty(elements, dtype=dtype, device=device).as_strided(shape, stride)
    kind, value = result
    return value if kind is None else kind(_build(item, inputs) for item in value)


def _kernel_name(func: Any, tensors: list[torch.Tensor]) -> str:
    """The operator and the dtype it works in: ``mm.bfloat16``."""
    dtype = str(tensors[0].dtype).removeprefix("torch.") if tensors else "none"
    return f"{func.overloadpacket.__name__}.{dtype}"


def _tensors(values: Any) -> Any:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _touched_bytes(tensor: torch.Tensor) -> int:
    """Bytes of memory behind a tensor; an expanded dimension is read once."""
    if not tensor.is_meta:
        return 0
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()
