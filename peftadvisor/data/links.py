"""How fast GPUs of one node exchange bytes, from the links of the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from peftadvisor.data.tables import Row, catalog_path, read_table

_PCIE_BYTES_PER_S = {"gen3": 16e9, "gen4": 32e9, "gen5": 64e9, "gen6": 128e9}
"""Of 16 lanes, one way."""
_NVLINK_SHARE = 350 / 450
_PCIE_SHARE = 12 / 16
"""What NCCL reaches of a link, one way: 350 GB/s on H100, 12 GB/s on PCIe 3 (NVIDIA/nccl#986)."""
_UNKNOWN = "gen4"


def link_bytes_per_s(gpu_id: str) -> float:
    """Bus bandwidth of collectives among GPUs of this kind in one node.

    That of NVLink (or its like) on modules; cards in slots are taken to have no bridge.
    """
    return _links().get(gpu_id, _PCIE_SHARE * _PCIE_BYTES_PER_S[_UNKNOWN])


@cache
def _links() -> Mapping[str, float]:
    columns = ("id", "form_factor", "nvlink_bytes_per_s", "pcie")
    rows = read_table(catalog_path("gpus.csv"), columns)
    return {row.text("id"): _bandwidth(row) for row in rows}


def _bandwidth(row: Row) -> float:
    both_ways = row.optional_number("nvlink_bytes_per_s")
    if both_ways and row.optional("form_factor") != "pcie":
        return _NVLINK_SHARE * both_ways / 2
    return _PCIE_SHARE * _PCIE_BYTES_PER_S[row.optional("pcie") or _UNKNOWN]
