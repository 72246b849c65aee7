"""Measurement rows, published ones and our own, as the contract's CSV holds them.

Cells become typed values; nothing is interpreted. A blank cell is what the source does not say,
and so is a shell expression that nobody evaluated (``$(expr``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from peftadvisor.data.tables import Row, read_table
from peftadvisor.errors import UsageError

_REMEDY = "give a CSV file in the columns that 'peftadvisor profile export' writes"
_TEXTS = (
    "row_id",
    "source_id",
    "superseded",
    "fidelity",
    "model",
    "method",
    "gpu",
    "parallelism",
    "seq_len_kind",
    "padding_packing",
    "weights_dtype",
    "compute_dtype",
    "quantization",
    "optimizer",
    "gradient_checkpointing",
    "attention",
    "compile_kernels",
    "offload",
    "status",
    "memory_kind",
    "throughput_unit",
    "throughput_scope",
    "train_time_kind",
    "versions",
)
_INTEGERS = (
    "n_gpus",
    "micro_batch_size",
    "grad_accum",
    "seq_len",
    "peak_memory_bytes",
    "peak_reserved_bytes",
    "peak_allocated_bytes",
    "nvidia_smi_bytes",
)
_NUMBERS = ("throughput", "train_time_s")
_COLUMNS = (*_TEXTS, *_INTEGERS, *_NUMBERS, "method_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row: what ran and what was measured, in the words of its source.

    Texts are empty and numbers None where the source is silent. The fields are the columns of the
    contract; ``method_config`` is the parsed JSON.
    """

    row_id: str
    source_id: str = ""
    superseded: str = ""
    fidelity: str = ""
    model: str = ""
    method: str = ""
    gpu: str = ""
    parallelism: str = ""
    seq_len_kind: str = ""
    padding_packing: str = ""
    weights_dtype: str = ""
    compute_dtype: str = ""
    quantization: str = ""
    optimizer: str = ""
    gradient_checkpointing: str = ""
    attention: str = ""
    compile_kernels: str = ""
    offload: str = ""
    status: str = ""
    memory_kind: str = ""
    throughput_unit: str = ""
    throughput_scope: str = ""
    train_time_kind: str = ""
    versions: str = ""
    n_gpus: int | None = None
    micro_batch_size: int | None = None
    grad_accum: int | None = None
    seq_len: int | None = None
    peak_memory_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    peak_allocated_bytes: int | None = None
    nvidia_smi_bytes: int | None = None
    throughput: float | None = None
    train_time_s: float | None = None
    method_config: Mapping[str, Any] = field(default_factory=dict, hash=False)


def read_measurements(path: Path) -> tuple[Measurement, ...]:
    """All rows of a file.

    Raises:
        UsageError: the file is missing, empty or no CSV text, lacks a column, or holds a number
            or a JSON object that is none; the message names file, line and column.
    """
    return tuple(_measurement(row) for row in read_table(path, _COLUMNS, remedy=_REMEDY))


def chosen(
    rows: tuple[Measurement, ...], sources: tuple[str, ...], fidelities: tuple[str, ...]
) -> tuple[Measurement, ...]:
    """The rows of these sources and fidelities; an empty filter lets all pass.

    Raises:
        UsageError: no row passes.
    """
    found = tuple(
        row
        for row in rows
        if (not sources or row.source_id in sources)
        and (not fidelities or row.fidelity in fidelities)
    )
    if found:
        return found
    there = sorted({f"{row.source_id or '-'} ({row.fidelity or '-'})" for row in rows})
    asked = ", ".join((*sources, *fidelities))
    raise UsageError(
        f"no row is of {asked}; the file has the sources (fidelity): {', '.join(there)}"
    )


def _measurement(row: Row) -> Measurement:
    row = replace(row, cells={name: _evaluated(cell) for name, cell in row.cells.items()})
    cells: dict[str, Any] = {
        **{name: row.optional(name) or "" for name in _TEXTS},
        **{name: row.optional_integer(name) for name in _INTEGERS},
        **{name: row.optional_number(name) for name in _NUMBERS},
    }
    return Measurement(**cells, method_config=_object(row, "method_config"))


def _evaluated(cell: str) -> str:
    return "" if cell.startswith("$(") else cell


def _object(row: Row, column: str) -> dict[str, Any]:
    text = row.optional(column)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise row.error(f"column '{column}' is '{text}'; it must be a JSON object")
    return value
