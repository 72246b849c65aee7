"""Device memory outside the tensors: the CUDA context, NCCL and the matmul workspaces.

Sizes are what users and libraries report, not measured here; ranges say how far they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftadvisor.specs import GpuSpec
from peftadvisor.units import MIB


@dataclass(frozen=True, slots=True)
class Range:
    """A size with the bounds within which reports lie, in bytes."""

    low: int
    typical: int
    high: int


_CONTEXT = Range(250 * MIB, 430 * MIB, 620 * MIB)
_CONTEXT_HOPPER = Range(430 * MIB, 616 * MIB, 750 * MIB)


def context_bytes(gpu: GpuSpec) -> Range:
    """The CUDA context with lazily loaded kernels (CUDA 11.7 and later).

    Reported in public issue threads: 256 MiB (RTX 3090, torch 2.7), 426 MiB (RTX 6000 Ada,
    torch 2.10, CUDA 13.0), about 616 MiB (H100-class host). Leaves out NCCL.
    """
    return _CONTEXT_HOPPER if _at_least_hopper(gpu) else _CONTEXT


def nccl_bytes(gpus: int) -> Range:
    """NCCL's buffers for one group of GPUs in one node, on each of them.

    544 MiB for two and 688 MiB for more (A100 with NVLink, NVIDIA/nccl#964), about 1.6 GB
    (NVIDIA/nccl#864), 110 MiB over PCIe (NVIDIA/nccl#34). They grow with the number of channels,
    and so with the link's bandwidth (NVIDIA/nccl#986). Leaves out further groups.
    """
    if gpus == 1:
        return Range(0, 0, 0)
    return Range(110 * MIB, (544 if gpus == 2 else 688) * MIB, 1526 * MIB)


HANDLES = 2
"""Of cuBLAS in training: of the thread that runs forward and of the one that runs backward."""


def matmul_workspace_bytes(gpu: GpuSpec) -> int:
    """CuBLAS workspace of one handle: 4096 KiB × 2 + 16 KiB × 8, or 32 MiB on Hopper."""
    return 32 * MIB if _at_least_hopper(gpu) else 8_519_680


def with_workspaces(
    events: NDArray[np.int64], sizes: NDArray[np.int64], workspace_bytes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Allocator events with the matmul workspaces, made after all is loaded and never freed."""
    first_free = int(np.argmax(events < 0)) if (events < 0).any() else len(events)
    extra = np.arange(len(sizes) + 1, len(sizes) + 1 + HANDLES)
    return (
        np.concatenate([events[:first_free], extra, events[first_free:]]),
        np.concatenate([sizes, np.full(HANDLES, workspace_bytes, dtype=sizes.dtype)]),
    )


def _at_least_hopper(gpu: GpuSpec) -> bool:
    return (gpu.compute_capability or (0, 0)) >= (9, 0) and gpu.vendor == "nvidia"
