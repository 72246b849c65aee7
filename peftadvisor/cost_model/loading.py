"""Memory while the base weights are loaded, before training starts: what one tensor costs in turn.

Of a tensor with n elements, b bytes each in the dtype that the run asks for, there are

    way           once it is there        besides, while it is made    later, before it is let go
    placed        b·n                     -
    merged        b·n                     b·n (the experts it is of)
    quantized     its bits and scales     t·n                          4·n of what was not quantized
    cast          4·n                     -                            b·n

with t = b (nf4), b + 1/8 (nf4-dq: its scales in fp32, and again less their mean) or b + 2 (int8: a
copy in fp16). The peak is the largest sum on the way, in bytes. ``placed`` is ``from_pretrained``
with a device map, where other dtypes are cast on the host: it never exceeds training, which holds
the same weights. ``merged``: the same, of a checkpoint that keeps experts apart. ``quantized``: on
the fly by bitsandbytes, one tensor after another, then PEFT's preparation, which gives the rest
fp32 (TRL narrows embeddings and head again later). ``cast``: read in fp32, moved, then ``.to()``.

Sources: transformers 5.23 (core_model_loading.py, integrations/bitsandbytes.py,
conversion_mapping.py), bitsandbytes 0.50.2 (nn/modules.py, functional.py), PEFT 0.21.2
(utils/other.py), torch 2.13 (aten/src/ATen/native/cuda/Copy.cu, nn/modules/module.py).
Leaves out: the block as large as all weights that transformers takes first and gives back; the
order of tensors, which matters little since every layer has its largest; the second copy of a
Conv1D; checkpoints that come quantized; buffers and biases, which count as weights; adapters;
weights that several GPUs divide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peftadvisor.cost_model.loaded import Loaded, loaded
from peftadvisor.cost_model.sharding import WHOLE
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.parts import ROUNDING_BYTES, Integers
from peftadvisor.simulator.trace import Owner
from peftadvisor.specs import DTYPE_BYTES, ModelSpec, Quantization, RunSpec

MERGED = frozenset(
    {
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5_moe",
        "glm4_moe",
        "jamba",
        "lfm2_moe",
        "minimax",
        "mixtral",
        "nemotron_h",
        "olmoe",
        "phimoe",
        "qwen2_moe",
        "qwen3_moe",
    }
)
"""Types of model whose experts come one by one and are merged on the card (transformers 5.23)."""

_FULL = 4
"""Bytes of an element in fp32."""
_WIDTHS = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """What loading asks of the allocator, in order, and the most that it holds in between.

    ``events`` and ``sizes`` are those of ``replay``; ``during`` says what is going on at the peak.
    """

    events: Integers
    sizes: Integers
    allocated_peak_bytes: int
    during: str


class _Tensors(NamedTuple):
    """Bytes of each tensor: once there, besides while it is made, and in the end."""

    there: Integers
    besides: Integers
    finally_: Integers


@dataclass(frozen=True, slots=True)
class _Weights:
    """The base weights of a run: bytes each in training, elements of those that are quantized."""

    size: Integers
    layered: NDArray[np.bool_]
    packed: Integers
    constant: NDArray[np.bool_]
    times: Integers


def loading(simulated: Simulated, run: RunSpec) -> Loading | None:
    """How the run loads its weights; None where nothing is converted, and training holds more."""
    if run.sharding in WHOLE and run.gpus > 1:
        return None
    quantization = run.training.quantization
    merges = run.model.config.get("model_type") in MERGED and run.training.transformers == "5"
    if not merges and quantization not in _BESIDES:
        return None
    weights = _weights(simulated, quantization)
    tensors = _quantized(weights, run) if quantization in _BESIDES else _placed(weights)
    if merges:  # every unpacked tensor of a layer counts: experts are the largest of them
        merged = weights.layered & (weights.packed == 0) & ~weights.constant
        tensors = tensors._replace(besides=np.where(merged, tensors.there, tensors.besides))
    making = "quantizing" if quantization in _BESIDES else "merging experts"
    return _played(tensors, weights.times, making, "preparing")


def cast_on_card(simulated: Simulated, run: RunSpec) -> Loading | None:
    """How much it would be to load in fp32 and cast on the card; None where nothing is cast."""
    each = DTYPE_BYTES[run.training.dtype]
    divided = run.sharding in WHOLE and run.gpus > 1
    if divided or each == _FULL or run.training.quantization != "none":
        return None
    weights = _weights(simulated, "none")
    tensors = _placed(weights)._replace(there=weights.size * _FULL // each)
    return _played(tensors, weights.times, "moving", "casting")


def _weights(simulated: Simulated, quantization: Quantization) -> _Weights:
    recording, units = simulated.recording, simulated.units
    held = loaded(recording)
    base = recording.storages.owner[held.rows] == Owner.WEIGHT
    block = recording.storages.birth_block[held.rows][base]
    packed = _PACKED[quantization](simulated, held) if quantization in _PACKED else 0 * held.size
    return _Weights(
        held.size[base],
        recording.blocks.layer[block] >= 0,
        packed[base],
        held.constant[base],
        recording.times(units)[block],
    )


def _packed_nf4(per_block: int) -> Callable[[Simulated, Loaded], Integers]:
    """A weight of two elements a byte has a scale of ``per_block`` bytes per 64 elements."""

    def elements(_: Simulated, held: Loaded) -> Integers:
        scale = -(-2 * held.size // 64) * per_block
        has_scale = np.isin(scale, held.size[held.scale]) & ~held.constant
        return np.where(has_scale, 2 * held.size, 0)

    return elements


def _packed_int8(simulated: Simulated, held: Loaded) -> Integers:
    """A weight of a byte an element is a factor of some product of int8."""
    uses = simulated.kernel_uses()
    factors = {u.shapes[-2] * u.shapes[-1] for u in uses if u.name.startswith("int8_product")}
    return np.where(np.isin(held.size, list(factors)), held.size, 0)


_PACKED: Mapping[Quantization, Callable[[Simulated, Loaded], Integers]] = {
    "nf4": _packed_nf4(4),
    "nf4-dq": _packed_nf4(1),
    "int8": _packed_int8,
}
"""Elements of each storage that is a quantized weight, else 0."""

_BESIDES: Mapping[Quantization, Callable[[int, Integers], Integers]] = {
    "nf4": lambda each, n: each * n,
    "nf4-dq": lambda each, n: each * n + 2 * _FULL * (n // 64),
    "int8": lambda each, n: each * n + 2 * n,
}
"""Bytes that quantizing n elements takes besides the result."""


def _placed(weights: _Weights) -> _Tensors:
    return _Tensors(weights.size, np.zeros_like(weights.size), weights.size)


def _quantized(weights: _Weights, run: RunSpec) -> _Tensors:
    each, size = DTYPE_BYTES[run.training.dtype], weights.size
    rest = (weights.packed == 0) & ~weights.constant
    narrow = rest & _narrow(size, run.training.kbit_preparation, run.model, each)
    widened = rest & (run.training.kbit_preparation != "none") & (each < _FULL)
    full = np.where(narrow, size * _FULL // each, size)
    there = np.where(widened, full * each // _FULL, size)
    besides = _BESIDES[run.training.quantization](each, weights.packed)
    return _Tensors(there, besides, np.where(widened, full, size))


def _narrow(size: Integers, preparation: str, model: ModelSpec, each: int) -> NDArray[np.bool_]:
    """Embeddings and heads that TRL casts back to 16 bits."""
    config = model.config
    widths = [config[name] for name in _WIDTHS if isinstance(config.get(name), int)]
    narrowed = [each * width * config.get("vocab_size", 0) for width in widths]
    return np.isin(size, narrowed if preparation == "trl" else [])


def _played(tensors: _Tensors, times: Integers, making: str, changing: str) -> Loading:
    """All tensors one after another, then those that change.

    What is not made of something else comes first, so that all else is there when the largest is.
    """
    order = np.argsort(np.repeat(tensors.besides, times) > 0, kind="stable")
    there, besides, finally_ = (np.repeat(sizes, times)[order] for sizes in tensors)
    number = np.arange(1, len(there) + 1)
    first, second, third = number, number + len(number), number + 2 * len(number)
    made = np.stack([first, second, -first], axis=1).ravel()
    changed = np.stack([third, -second], axis=1)[finally_ != there].ravel()
    events, sizes = np.concatenate([made, changed]), np.concatenate([besides, there, finally_])
    rounded = -(-sizes // ROUNDING_BYTES) * ROUNDING_BYTES
    held = np.cumsum(np.sign(events) * rounded[np.abs(events) - 1])
    peak = int(np.argmax(held))
    during = making if peak < len(made) else changing
    return Loading(events=events, sizes=sizes, allocated_peak_bytes=int(held[peak]), during=during)
