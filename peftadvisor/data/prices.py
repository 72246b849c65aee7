"""What GPUs cost to rent, each price with its date; a live refresh is not this module's job."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from peftadvisor.data.tables import Row, catalog_path, read_table
from peftadvisor.specs import PriceSpec

_COLUMNS = (
    "gpu_id",
    "provider",
    "instance",
    "gpu_count",
    "region",
    "usd_per_gpu_hour",
    "spot_usd_per_gpu_hour",
    "date",
    "source",
    "confidence",
)


@cache
def load_prices() -> tuple[PriceSpec, ...]:
    """All bundled prices, in US dollars per GPU and hour."""
    return read_prices(catalog_path("prices.csv"))


def cheapest_price(gpu_id: str, spot: bool = False) -> PriceSpec | None:
    """The lowest on-demand (or spot) price of a GPU, None where the catalog has none.

    Rows of low confidence (network anchor prices, GPUs priced without the VM they need) are
    taken only where nothing better is known.
    """
    offers = [
        (price.confidence == "low", usd, number)
        for number, price in enumerate(load_prices())
        if price.gpu_id == gpu_id and (usd := _usd(price, spot)) is not None
    ]
    return load_prices()[min(offers)[2]] if offers else None


def read_prices(path: Path) -> tuple[PriceSpec, ...]:
    """Read a price catalog.

    Raises:
        UsageError: the file is missing, empty or holds a bad row; the message says where.
    """
    return tuple(_price(row) for row in read_table(path, _COLUMNS))


def _usd(price: PriceSpec, spot: bool) -> float | None:
    return price.spot_usd_per_gpu_hour if spot else price.usd_per_gpu_hour


def _price(row: Row) -> PriceSpec:
    return PriceSpec(
        gpu_id=row.text("gpu_id"),
        provider=row.text("provider"),
        instance=row.text("instance"),
        gpu_count=row.integer("gpu_count"),
        region=row.optional("region") or "",
        usd_per_gpu_hour=row.optional_number("usd_per_gpu_hour"),
        spot_usd_per_gpu_hour=row.optional_number("spot_usd_per_gpu_hour"),
        date=row.text("date"),
        source=row.text("source"),
        confidence=row.text("confidence"),
    )
