"""The GPU catalog: memory as torch reports it, dense peak rates, and what matmuls reach of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from peftadvisor.data.names import NameIndex, build_index
from peftadvisor.data.tables import Row, catalog_path, read_table
from peftadvisor.errors import UsageError
from peftadvisor.specs import GpuSpec

_DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")
_GPU_COLUMNS = (
    "id",
    "name",
    "aliases",
    "vendor",
    "architecture",
    "compute_capability",
    "memory_bytes",
    "usable_bytes",
    "usable_basis",
    "memory_bandwidth_bytes_per_s",
    "multiprocessor_count",
    *(f"{dtype}_flops_per_s" for dtype in _DTYPES),
    "source",
    "confidence",
)
_MATMUL_COLUMNS = ("gpu_id", "dtype", "measured_flops_per_s", "source", "confidence")
_USABLE_NOTES: Mapping[str, str] = {
    "seen": "",
    "assumed": "; usable memory assumed from a like card",
    "nvidia-smi": "; usable memory is the total of nvidia-smi, not yet seen from torch",
    "nominal": "; usable memory is the nominal size, not yet seen from torch",
}
# Words that drivers put before or after the model number and people leave out.
_BRAND_WORDS = frozenset(
    {"nvidia", "amd", "intel", "geforce", "tesla", "instinct", "graphics", "r", "tm"}
)
_MIN_CARDS_FOR_A_VENDOR_DEFAULT = 3

Shares = Mapping[str, Mapping[str, float]]


def load_gpus() -> dict[str, GpuSpec]:
    """All bundled GPUs by id.

    ``usable_bytes`` is what torch reports as total memory, else the nominal size, and then
    ``confidence`` says so. ``achievable`` holds measured matmul shares per dtype and
    ``'default'`` for the others: the card's own bf16 share, else the median over the measured
    cards of its vendor (all Ampere or newer), else the NVIDIA median. A dtype is absent from
    ``peak_flops_per_s`` where the card has no such units (bf16 on V100 and T4) or no rate is
    known (Apple).
    """
    return dict(_bundled())


def find_gpu(name: str) -> GpuSpec:
    """The GPU that a name means, as people or drivers write it.

    ``'a100-40gb'``, ``'NVIDIA A100-SXM4-40GB'`` and ``'rtx 4090'`` are found: case, spaces,
    dashes and brand words do not matter.

    Raises:
        UnknownNameError: no GPU has this name.
        UsageError: the name fits GPUs with different memory (``'a100'``); they are listed.
    """
    index = _index()
    clear = (text for text, _ in _spellings() if len(index.ids_by_key[_name_key(text)]) == 1)
    return _bundled()[index.resolve(name, clear)]


def custom_gpu(spec: GpuSpec, memory_bytes: int) -> GpuSpec:
    """The same GPU with ``memory_bytes`` of usable memory, as the user states it.

    Raises:
        UsageError: the size is not positive.
    """
    if memory_bytes <= 0:
        raise UsageError(f"GPU memory is {memory_bytes} B; it must be positive, such as 24GiB")
    rated = spec.confidence.partition(";")[0]
    return replace(
        spec,
        usable_bytes=memory_bytes,
        memory_bytes=max(spec.memory_bytes, memory_bytes),
        confidence=f"{rated}; usable memory given by the user",
    )


def read_gpus(gpus_file: Path, matmul_file: Path) -> dict[str, GpuSpec]:
    """Read a GPU catalog and the matmul rates measured on its cards.

    Raises:
        UsageError: a file is missing, empty or holds a bad row; the message says where.
    """
    rows = _rows_by_id(read_table(gpus_file, _GPU_COLUMNS))
    peaks = {gpu_id: _peaks(row) for gpu_id, row in rows.items()}
    shares = _measured_shares(read_table(matmul_file, _MATMUL_COLUMNS), peaks)
    defaults = _default_shares({gpu_id: row.text("vendor") for gpu_id, row in rows.items()}, shares)
    return {
        gpu_id: _gpu(row, peaks[gpu_id], {"default": defaults[gpu_id], **shares.get(gpu_id, {})})
        for gpu_id, row in rows.items()
    }


def gpu_aliases() -> dict[str, tuple[str, ...]]:
    """The further names of each GPU in the catalog, by id."""
    rows = read_table(catalog_path("gpus.csv"), ("id", "aliases"))
    return {row.text("id"): _aliases(row) for row in rows}


@cache
def _bundled() -> dict[str, GpuSpec]:
    return read_gpus(catalog_path("gpus.csv"), catalog_path("gpu_mamf.csv"))


@cache
def _spellings() -> tuple[tuple[str, str], ...]:
    """Every name in the catalog with the id of its GPU."""
    names = [(text, spec.id) for spec in _bundled().values() for text in (spec.id, spec.name)]
    aliases = [(alias, gpu_id) for gpu_id, found in gpu_aliases().items() for alias in found]
    return (*names, *aliases)


@cache
def _index() -> NameIndex:
    return build_index("GPU", _name_key, _spellings())


def _name_key(name: str) -> str:
    words = re.findall(r"[a-z0-9]+", name.lower())
    joined = "".join(word for word in words if word not in _BRAND_WORDS)
    return re.sub(r"(?<=\d)gi?b", "g", joined)


def _rows_by_id(rows: list[Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        if row.text("id") in found:
            raise row.error(f"a second row for '{row.text('id')}'")
        found[row.text("id")] = row
    return found


def _aliases(row: Row) -> tuple[str, ...]:
    return tuple(filter(None, (row.optional("aliases") or "").split("|")))


def _peaks(row: Row) -> dict[str, float]:
    rates = {dtype: row.optional_number(f"{dtype}_flops_per_s") for dtype in _DTYPES}
    return {dtype: rate for dtype, rate in rates.items() if rate is not None}


def _measured_shares(rows: list[Row], peaks: Shares) -> dict[str, dict[str, float]]:
    """Measured matmul rate over catalog peak, per GPU and dtype."""
    shares: dict[str, dict[str, float]] = {}
    for row in rows:
        gpu_id, dtype = row.text("gpu_id"), row.text("dtype")
        peak = peaks.get(gpu_id, {}).get(dtype)
        if peak is None:
            raise row.error(f"no {dtype} rate of '{gpu_id}' in the GPU catalog")
        shares.setdefault(gpu_id, {})[dtype] = row.number("measured_flops_per_s") / peak
    return shares


def _default_shares(vendors: Mapping[str, str], shares: Shares) -> dict[str, float]:
    """The share assumed for dtypes that were not measured, per GPU; see ``load_gpus``."""
    measured: dict[str, list[float]] = {}
    for gpu_id, by_dtype in shares.items():
        if "bf16" in by_dtype:
            measured.setdefault(vendors[gpu_id], []).append(by_dtype["bf16"])
    medians = {
        vendor: _median(values)
        for vendor, values in measured.items()
        if len(values) >= _MIN_CARDS_FOR_A_VENDOR_DEFAULT
    }
    if "nvidia" not in medians:
        raise UsageError("the matmul catalog holds too few NVIDIA rows; reinstall peftadvisor")
    return {
        gpu_id: shares.get(gpu_id, {}).get("bf16", medians.get(vendor, medians["nvidia"]))
        for gpu_id, vendor in vendors.items()
    }


def _median(values: list[float]) -> float:
    # The statistics module would cost 10 ms of import.
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[-middle - 1]) / 2


def _gpu(row: Row, peaks: Mapping[str, float], achievable: Mapping[str, float]) -> GpuSpec:
    nominal = row.integer("memory_bytes")
    basis = row.text("usable_basis")
    if basis not in _USABLE_NOTES:
        raise row.error(f"usable_basis is '{basis}'; it must be one of {', '.join(_USABLE_NOTES)}")
    return GpuSpec(
        id=row.text("id"),
        name=row.text("name"),
        vendor=row.text("vendor"),
        architecture=row.text("architecture"),
        compute_capability=_capability(row.optional("compute_capability")),
        memory_bytes=nominal,
        usable_bytes=row.optional_integer("usable_bytes") or nominal,
        memory_bandwidth_bytes_per_s=row.integer("memory_bandwidth_bytes_per_s"),
        peak_flops_per_s=peaks,
        achievable=achievable,
        multiprocessor_count=row.optional_integer("multiprocessor_count"),
        source=row.text("source"),
        confidence=row.text("confidence") + _USABLE_NOTES[basis],
    )


def _capability(text: str | None) -> tuple[int, int] | None:
    """``'8.6'`` as ``(8, 6)``; None for AMD's gfx names and where there is none."""
    match = re.fullmatch(r"(\d+)\.(\d+)", text or "")
    return (int(match[1]), int(match[2])) if match else None
