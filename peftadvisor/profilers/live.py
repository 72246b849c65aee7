"""A run that is about to start, read off the live model, its arguments, optimizer and data."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from peftadvisor.data.config_files import config_key
from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.profilers.counted import Counted, counted
from peftadvisor.profilers.live_methods import method_in
from peftadvisor.profilers.live_settings import (
    more_arguments,
    settings_of,
    unknown_arguments,
)
from peftadvisor.profilers.loaded import model_of
from peftadvisor.profilers.seen import Seen
from peftadvisor.profilers.structure import require_same
from peftadvisor.simulator.depth import completed
from peftadvisor.specs import KbitPreparation, MethodSpec, ModelSpec, TrainingSpec

_PREPARATIONS: tuple[KbitPreparation, ...] = ("peft", "trl", "none")
_UNSIZED = frozenset({"use_cache", "architectures"})
"""Keys of a config by which a live model may differ from the file it was made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is simulated of a live run: model, method and settings, found the same as the live."""

    model: ModelSpec
    method: MethodSpec
    training: TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """A run that is about to start.

    ``run`` is None where it is not one that can be simulated; then ``unknown`` says why, with all
    reasons. ``more`` is what it does besides what is simulated. ``counted`` is what it holds at
    least, ``lengths`` where its lengths come from.
    """

    run: Run | None
    unknown: tuple[str, ...]
    more: tuple[str, ...]
    counted: Counted
    lengths: str
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a Trainer holds, and the type of the device that it will train on.

    ``optimizer`` is None where there is none yet. ``seen`` makes the largest micro-batch, or
    raises why it cannot.
    """

    model: Any
    args: Any
    optimizer: Any
    seen: Callable[[], Seen]
    device: str


def live_run(parts: Parts) -> LiveRun:
    """Read everything off; what cannot be read becomes a reason, and never an assumption."""
    unknown = list(unknown_arguments(parts.args, begun=parts.optimizer is not None))

    def read(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except UsageError as error:
            unknown.append(str(error))
            return None

    model = unwrapped(parts.model)
    base = base_of(model)
    seen = read(parts.seen)
    spec = read(lambda: spec_of(base))
    method = read(lambda: method_in(model))
    training = None
    if len({p.device for p in model.parameters()}) > 1:
        unknown.append("the model lies on several devices")
    if seen is not None and spec is not None:
        training = read(
            lambda: settings_of(base, parts.args, parts.optimizer, seen, parts.device == "cuda")
        )
        unknown.extend(_unsimulated(seen, base))
    run = None
    if spec and method and training:
        candidate = Run(model=spec, method=method, training=training)
        run = read(lambda: _verified(model, candidate))
    return LiveRun(
        run=None if unknown else run,
        unknown=tuple(unknown),
        more=tuple(more_arguments(parts.args)),
        counted=counted(model, parts.args, parts.optimizer),
        lengths=seen.how if seen else "",
        processes=getattr(parts.args, "world_size", 1),
    )


def unwrapped(model: Any) -> Any:
    """The model without what torch wraps it in to train on several GPUs."""
    distributed = isinstance(model, torch.nn.parallel.DistributedDataParallel)
    return model.module if distributed else model


def base_of(model: Any) -> Any:
    """The transformers model, out of what PEFT wraps it in."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def adapted(model: Any, peft_config: Any) -> Any:
    """The model as PEFT would wrap it, of shapes alone: the one that is given stays as it is.

    Raises:
        UsageError: PEFT refuses the combination, or the model must be wrapped before.
    """
    import peft

    from peftadvisor.methods.peft_backed import REFUSALS, reason_of, shapes_only

    if hasattr(model, "peft_config"):
        raise UsageError("the model is wrapped by PEFT already; leave out peft_config")
    if getattr(getattr(model, "config", None), "quantization_config", None):
        raise UsageError("wrap the quantized model by PEFT first, and leave out peft_config")
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        memo[id(tensor)] = _shape_of(tensor)
    with torch.device("meta"), shapes_only():
        try:
            return peft.get_peft_model(copy.deepcopy(model, memo), copy.deepcopy(peft_config))
        except REFUSALS as error:
            raise UsageError(f"PEFT refuses the model: {reason_of(error)}") from error


def spec_of(model: Any) -> ModelSpec:
    """A live model's spec: the bundled one of its name where the configs say the same.

    Raises:
        UsageError: it has no config of transformers.
    """
    if not hasattr(model, "config") or not hasattr(model.config, "to_json_string"):
        raise UsageError(f"{type(model).__name__} has no config of transformers")
    live = model_of(model)
    try:
        bundled = find_model(live.id)
        if _shape_key(completed(bundled.config)) == _shape_key(model.config):
            return bundled
    except UsageError:  # a name of the user's own, or one with several meanings
        pass
    config = {**live.config, "architectures": [type(model).__name__]}
    return replace(live, config=config, config_key=config_key(config))


def _shape_key(config: Any) -> str:
    values = json.loads(config.to_json_string(use_diff=False))
    return config_key({name: value for name, value in values.items() if name not in _UNSIZED})


def _shape_of(tensor: Any) -> Any:
    shape = torch.empty_like(tensor, device="meta")
    if not isinstance(tensor, torch.nn.Parameter):
        return shape
    return torch.nn.Parameter(shape, requires_grad=tensor.requires_grad)


def _verified(model: Any, run: Run) -> Run:
    """The run, if it is the live one; how a quantized base was prepared is found by trying."""
    if run.training.quantization == "none":
        require_same(model, run.model, run.method, run.training)
        return run
    first: UsageError | None = None
    for preparation in _PREPARATIONS:
        training = replace(run.training, kbit_preparation=preparation)
        try:
            require_same(model, run.model, run.method, training)
        except UsageError as error:
            first = first or error
        else:
            return replace(run, training=training)
    assert first is not None
    raise first


def _unsimulated(seen: Seen, model: Any) -> list[str]:
    """Tensors of a batch beside those that are simulated: all but more numbers of the tokens."""
    pairs = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if pairs and seen.target_len is None:
        return ["the length of targets is not known; pass target_len="]
    if not seen.names:
        return []
    names = dict(seen.names)
    floats = [name for name, kind in names.items() if kind == "floats"]
    reasons = [f"batches hold {name}, which is not simulated" for name in floats]
    if "labels" not in names:
        reasons.append("batches hold no labels, so that the loss is not the model's own")
    return reasons
