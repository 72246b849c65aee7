"""FSDP's options, as TrainingArguments and accelerate write them: how the run is divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.reader import shown
from peftadvisor.specs import Sharding

STRATEGIES: Mapping[str, Sharding] = {
    "full_shard": "fsdp",
    "hybrid_shard": "fsdp",
    "shard_grad_op": "zero-2",
    "hybrid_shard_zero2": "zero-2",
    "no_shard": "ddp",
    "1": "fsdp",
    "2": "zero-2",
    "3": "ddp",
    "4": "fsdp",
    "5": "zero-2",
}
"""Torch's strategies by name and number; what shards gradients and states alone is ZeRO-2."""
OFFLOAD = "FSDP's offload of weights is left out of the prediction"
_WORDS = frozenset({"auto_wrap", "offload"})
_SWITCHES = frozenset({"true", "1", "yes"})


def fsdp_of(asked: Any, options: Mapping[str, Any], file: str) -> tuple[Sharding, tuple[str, ...]]:
    """What ``fsdp`` (true, words, or a list of them) and its options come to, and notes.

    Raises:
        UsageError: a word that FSDP does not have.
    """
    words = asked if isinstance(asked, list) else str(asked).lower().replace(",", " ").split()
    if words and str(words[0]).lower() in _SWITCHES:
        words = []
    sharding = _resharding(options)
    for word in (str(word).lower() for word in words):
        if word in STRATEGIES:
            sharding = STRATEGIES[word]
        elif word not in _WORDS:
            known = ", ".join((*(n for n in STRATEGIES if not n.isdigit()), *sorted(_WORDS)))
            raise UsageError(f"{file}: 'fsdp' is {shown(asked)}; known here: true, {known}")
    offload = "offload" in words or bool(options.get("cpu_offload"))
    return sharding, (OFFLOAD,) if offload or options.get("offload_params") else ()


def _resharding(options: Mapping[str, Any]) -> Sharding:
    """FSDP 2 leaves weights gathered after forward where ``reshard_after_forward`` is false."""
    named = str(options.get("sharding_strategy", "")).lower()
    if named in STRATEGIES:
        return STRATEGIES[named]
    said = str(options.get("reshard_after_forward", True)).lower()
    return STRATEGIES.get(said, "zero-2" if said == "false" else "fsdp")
