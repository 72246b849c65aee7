"""The GPU of this machine, as the driver tells it through NVML; no torch, no CUDA context."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UsageError

_REMEDY = "name it, such as --gpu a100-40g (see: peftadvisor list gpus)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGpu:
    """A GPU by the driver's name for it; ``usable_bytes`` is what processes can get of it."""

    name: str
    usable_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The driver of this machine and the GPUs that it shows; ``split`` are those that MIG cuts."""

    driver: str
    gpus: tuple[LiveGpu, ...]
    split: tuple[str, ...] = ()


def machine(asking: str, remedy: str) -> Machine:
    """What the driver says of itself and of every visible GPU.

    Raises:
        UsageError: no NVML, no driver, or the driver does not answer.
    """
    with driver(asking, remedy) as nvml:
        handles = visible(nvml)
        names = [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles]
        return Machine(
            driver=_text(nvml.nvmlSystemGetDriverVersion()),
            gpus=tuple(
                LiveGpu(name=name, usable_bytes=_usable_bytes(nvml, handle))
                for name, handle in zip(names, handles, strict=True)
            ),
            split=tuple(
                name for name, handle in zip(names, handles, strict=True) if is_split(nvml, handle)
            ),
        )


def live_gpu() -> LiveGpu:
    """The GPU that a run on this machine would use (the first visible one).

    Raises:
        UsageError: no NVML, no driver, no GPU, GPUs of several kinds, or a GPU split by MIG.
    """
    with driver("--gpu auto", _REMEDY) as nvml:
        handles = some_visible(nvml, "--gpu auto", _REMEDY)
        names = sorted({_text(nvml.nvmlDeviceGetName(handle)) for handle in handles})
        if len(names) > 1:
            raise UsageError(f"--gpu auto: several kinds here ({', '.join(names)}); {_REMEDY}")
        if is_split(nvml, handles[0]):
            raise UsageError(
                f"--gpu auto: {names[0]} is split by MIG; name it and give --gpu-memory"
            )
        return LiveGpu(name=names[0], usable_bytes=_usable_bytes(nvml, handles[0]))


def free_bytes(uuid: str) -> int:
    """What no process holds of a GPU now, by its UUID as torch tells it.

    Raises:
        UsageError: no NVML, no driver, no such GPU, or one that is split by MIG: the driver tells
            of the whole card only.
    """
    asking, remedy = "free memory of the GPU", "say how much there is: limit_bytes="
    with driver(asking, remedy) as nvml:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        if is_split(nvml, handle):
            raise UsageError(f"{asking}: it is split by MIG; {remedy}")
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).free)


@contextmanager
def driver(asking: str, remedy: str) -> Iterator[Any]:
    """NVML, opened and closed again; ``asking`` is who wants to know, as messages name it.

    Raises:
        UsageError: no NVML, no driver, or what the driver says against a question inside.
    """
    try:
        import pynvml
    except ImportError:
        raise UsageError(
            f"{asking} needs nvidia-ml-py (pip install nvidia-ml-py), or {remedy}"
        ) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise UsageError(f"{asking}: no NVIDIA driver here ({error}); {remedy}") from None
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise UsageError(f"{asking}: the driver says '{error}'; {remedy}") from None
    finally:
        pynvml.nvmlShutdown()


def visible(nvml: Any) -> list[Any]:
    """Handles of the GPUs that CUDA_VISIBLE_DEVICES leaves, all where it is not set."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    handles = []
    for entry in filter(None, map(str.strip, chosen.split(","))):
        if entry.startswith("GPU-"):
            handles.append(nvml.nvmlDeviceGetHandleByUUID(entry))
        elif entry.isdigit() and int(entry) < nvml.nvmlDeviceGetCount():
            handles.append(nvml.nvmlDeviceGetHandleByIndex(int(entry)))
        else:  # CUDA ignores an unknown entry and all that follow it
            break
    return handles


def some_visible(nvml: Any, asking: str, remedy: str) -> list[Any]:
    """``visible``, one at least.

    Raises:
        UsageError: there is none.
    """
    handles = visible(nvml)
    if not handles:
        raise UsageError(f"{asking}: no GPU is visible here; {remedy}")
    return handles


def is_split(nvml: Any, handle: Any) -> bool:
    """Whether MIG cuts the card into parts."""
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError:  # cards without MIG do not know the question
        return False
    return bool(current == nvml.NVML_DEVICE_MIG_ENABLE)


def _usable_bytes(nvml: Any, handle: Any) -> int:
    """Total memory less what the driver reserves, which is close to what torch calls total."""
    try:
        info = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):  # drivers before 510
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return int(info.total - info.reserved)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
