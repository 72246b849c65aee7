"""What published rows hold that no run of ours can describe yet: the one table of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from peftadvisor.data.measurements import Measurement
from peftadvisor.specs import Sharding

RAN_OUT = frozenset({"oom", "out of memory", "failed/oom (no throughput)"})
"""Statuses of runs that ran out of memory, as our rows and the published ones word them."""

SHARDINGS: Mapping[str, Sharding] = {"fsdp full_shard": "fsdp"}
"""How rows name what several GPUs of one node divide."""

_NONE = ("", "none")


@dataclass(frozen=True, slots=True)
class Limit:
    """A reason to leave rows out, and which rows those are."""

    reason: str
    applies: Callable[[Measurement], bool]


def fused_elementwise(row: Measurement) -> bool:
    """Whether norms and rotary embeddings ran as kernels of their own, besides the loss.

    Under checkpointing that leaves memory as it is, but not time.
    """
    checkpointed = row.gradient_checkpointing not in _NONE
    return checkpointed and row.compile_kernels.startswith("fms foak")


def _several(row: Measurement) -> bool:
    return row.n_gpus not in (None, 1) or row.parallelism not in _NONE


LIMITS = (
    Limit("superseded by a later row of its source", lambda row: row.superseded == "1"),
    Limit(
        "status is neither ok nor out of memory",
        lambda row: row.status != "ok" and row.status not in RAN_OUT,
    ),
    Limit(
        "several GPUs, and not FSDP's full shard within a node",
        lambda row: _several(row) and row.parallelism not in SHARDINGS,
    ),
    Limit(
        "compiled or replaced kernels",
        lambda row: row.compile_kernels not in _NONE and not fused_elementwise(row),
    ),
    Limit("parameters or optimizer on the CPU", lambda row: row.offload not in _NONE),
)


def limit_of(row: Measurement) -> str:
    """The first reason why no run of ours can describe the row; empty if none is known."""
    return next((limit.reason for limit in LIMITS if limit.applies(row)), "")
