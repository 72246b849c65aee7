"""How an axolotl config divides the run between GPUs. Read in axolotl 0.19.0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.axolotl_keys import on
from peftadvisor.integrations.configs.deepspeed import sharding_of
from peftadvisor.integrations.configs.reader import Reader, one_of, shown, switch, whole
from peftadvisor.specs import Sharding

_STRATEGIES: Mapping[str, Sharding] = {
    "full_shard": "fsdp",
    "hybrid_shard": "fsdp",
    "shard_grad_op": "zero-2",
    "hybrid_shard_zero2": "zero-2",
    "no_shard": "ddp",
}
"""FSDP's ``shard_grad_op`` keeps weights whole, as ZeRO's second stage does."""


def _resharded(value: Any) -> Sharding:
    """FSDP2's switch; FSDP1's names of strategies are taken too."""
    if str(value).lower() in _STRATEGIES:
        return _STRATEGIES[str(value).lower()]
    return "fsdp" if switch(value) else "zero-2"


_SWITCHES: Mapping[str, Callable[[Any], Sharding]] = {
    "sharding_strategy": one_of(_STRATEGIES),
    "fsdp_sharding_strategy": one_of(_STRATEGIES),
    "reshard_after_forward": _resharded,
    "fsdp_reshard_after_forward": _resharded,
}
"""Keys of ``fsdp_config`` that say how much is divided, the first one decides."""
_SIZES = (*("dp_shard_size", "dp_replicate_size", "context_parallel_size", "tensor_parallel_size"),)


def read_sharding(reader: Reader, folder: Path) -> tuple[int | None, Sharding, tuple[str, ...]]:
    """The number of GPUs where the file tells, how they share the run, and notes.

    Raises:
        UsageError: DeepSpeed and FSDP are both asked for, or either's value is none.
    """
    gpus = _gpus(reader)
    deep = reader.peek("deepspeed")
    reader.peek("fsdp_version")
    reader.peek("fsdp_config.fsdp_version")
    fsdp = on(reader.peek("fsdp")) or on(reader.values.get("fsdp_config"))
    if on(deep) and on(reader.peek("fsdp")):
        raise UsageError(f"{reader.file} has both 'deepspeed' and 'fsdp'; keep one of them")
    if on(deep):
        found, notes = sharding_of(deep, folder, reader.file)
        told = shown(deep) if isinstance(deep, str) else "its zero_optimization"
        reader.note("sharding", found, "deepspeed", f"deepspeed: {told}")
        return gpus, found, notes
    if fsdp or on(reader.peek("dp_shard_size")):
        return gpus, _fsdp(reader), ()
    reader.note("sharding", "ddp", None, f"default of {reader.defaults_of}")
    return gpus, "ddp", ()


def _gpus(reader: Reader) -> int | None:
    """As many as the dimensions of parallelism or Ray's workers, which say it exactly."""
    sizes = {
        key: reader.understood(key, reader.peek(key), whole) for key in _SIZES if reader.has(key)
    }
    if {"dp_shard_size", "dp_replicate_size"} & set(sizes):
        total = prod(sizes.values())
        reader.note(
            "gpus", total, next(iter(sizes)), " x ".join(f"{k}: {n}" for k, n in sizes.items())
        )
        return total
    reader.peek("ray_num_workers")
    if on(reader.peek("use_ray")):
        return reader.take("gpus", "ray_num_workers", whole, 1)
    reader.note("gpus", None, None, "the launcher says how many, not the file")
    return None


def _fsdp(reader: Reader) -> Sharding:
    words = reader.peek("fsdp", [])
    listed = [words] if isinstance(words, str) else words if isinstance(words, list) else []
    given = [key for key in _SWITCHES if reader.has(f"fsdp_config.{key}")]
    known = [str(word).lower() for word in " ".join(map(str, listed)).replace(",", " ").split()]
    named = next((word for word in known if word in _STRATEGIES), None)
    for key in given:
        return reader.take("sharding", f"fsdp_config.{key}", _SWITCHES[key], "fsdp")
    value = _STRATEGIES[named] if named else "fsdp"
    key = "fsdp" if named else "fsdp_config"
    reader.note("sharding", value, key, f"fsdp: {named}" if named else "full shard by default")
    return value
