"""How much of a GPU a run can get now: what is free, and what this process holds already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from peftadvisor.cuda.devices import free_bytes
from peftadvisor.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Bytes of one GPU: free for all, reserved by torch in this process, and what of it is taken.

    ``others_bytes`` are tensors of this process that are no part of the model, as those of a
    second model: they stay where they are.
    """

    gpu: str
    free_bytes: int
    source: str
    reserved_bytes: int
    others_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What the run's tensors can take, its weights included; no CUDA context."""
        return self.free_bytes + self.reserved_bytes - self.others_bytes


def room_of(index: int, model_bytes: int, cuda: Any = torch.cuda) -> Room:
    """The room of the GPU of that index now, with a model of so many bytes on it.

    By the driver (NVML), else by torch. ``cuda`` is torch.cuda, or what plays its part in tests.
    """
    try:
        free = free_bytes(str(cuda.get_device_properties(index).uuid))
        source = "NVML"
    except (UsageError, AttributeError):  # no driver's library, or a card without a UUID
        free, source = int(cuda.mem_get_info(index)[0]), "torch.cuda.mem_get_info"
    return Room(
        gpu=cuda.get_device_name(index),
        free_bytes=free,
        source=source,
        reserved_bytes=int(cuda.memory_reserved(index)),
        others_bytes=max(0, int(cuda.memory_allocated(index)) - model_bytes),
    )


def live_room(model: Any, model_bytes: int) -> Room:
    """The room of the GPU that a model of so many bytes is on."""
    index = next(model.parameters()).device.index
    return room_of(torch.cuda.current_device() if index is None else index, model_bytes)
