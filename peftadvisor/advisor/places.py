"""Where a run may take place: a GPU, how many of it, what they divide, and what an hour costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peftadvisor.data.gpus import load_gpus
from peftadvisor.data.prices import cheapest_price
from peftadvisor.specs import GpuSpec, PriceSpec, Sharding

COUNTS = (1, 2, 4, 8)
"""GPUs of one node that are tried where the user names none; more only where fewer do not do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``count`` GPUs of one kind in one node; ``price`` is None where no price is on record."""

    gpu: GpuSpec
    count: int = 1
    sharding: Sharding = "ddp"
    price: PriceSpec | None = None

    @property
    def usd_per_hour(self) -> float | None:
        """Of all its GPUs."""
        usd = self.price.usd_per_gpu_hour if self.price else None
        return None if usd is None else usd * self.count

    def to_dict(self) -> dict[str, Any]:
        """Plain data; the GPU by its id."""
        return {
            "gpu": self.gpu.id,
            "gpus": self.count,
            "sharding": self.sharding,
            "usd_per_hour": self.usd_per_hour,
        }


def named(gpu: GpuSpec, count: int = 1, sharding: Sharding = "ddp") -> tuple[Place, ...]:
    """The one place that the user has."""
    return (Place(gpu=gpu, count=count, sharding=sharding, price=cheapest_price(gpu.id)),)


def for_hire(max_usd_per_hour: float | None = None) -> tuple[Place, ...]:
    """One GPU of each kind that has a price, and several: replicas (ddp), or divided (zero-3)."""
    found = []
    for gpu in load_gpus().values():
        price = cheapest_price(gpu.id)
        if price is None or price.usd_per_gpu_hour is None:
            continue
        for count in COUNTS:
            ways: Iterable[Sharding] = ("ddp",) if count == 1 else ("ddp", "zero-3")
            found += [Place(gpu=gpu, count=count, sharding=way, price=price) for way in ways]
    if max_usd_per_hour is None:
        return tuple(found)
    return tuple(p for p in found if (p.usd_per_hour or 0.0) <= max_usd_per_hour)
