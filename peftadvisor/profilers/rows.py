"""Records as measurement rows, in the columns that ``validate`` reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.profilers.records import Record

COLUMNS = (
    "row_id",
    "source_id",
    "source",
    "commit",
    "source_date",
    "superseded",
    "fidelity",
    "suggested_split",
    "model",
    "model_params",
    "method",
    "method_config",
    "trainable_params",
    "gpu",
    "n_gpus",
    "parallelism",
    "micro_batch_size",
    "grad_accum",
    "seq_len",
    "seq_len_kind",
    "padding_packing",
    "dataset",
    "weights_dtype",
    "compute_dtype",
    "quantization",
    "optimizer",
    "gradient_checkpointing",
    "attention",
    "compile_kernels",
    "offload",
    "status",
    "peak_memory_bytes",
    "memory_kind",
    "memory_scope",
    "memory_raw",
    "unit_ambiguous",
    "peak_reserved_bytes",
    "peak_allocated_bytes",
    "mem_reserved_avg_bytes",
    "mem_reserved_99th_bytes",
    "mem_allocated_avg_bytes",
    "nvidia_smi_bytes",
    "throughput",
    "throughput_unit",
    "throughput_scope",
    "train_time_s",
    "train_time_kind",
    "quality_metric",
    "quality_value",
    "versions",
    "notes",
)


def to_csv(records: Iterable[Record]) -> str:
    """The measured runs among the records, one row each; what a run does not have stays blank."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(record) for record in records if record.run["engine"] == "measure")
    return text.getvalue()


def _row(record: Record) -> dict[str, Any]:
    run, training = record.run, record.run["training"]
    row: dict[str, Any] = {
        "row_id": f"peftadvisor-{record.id}",
        "source_id": "peftadvisor",
        "source": "peftadvisor profile",
        "source_date": record.created,
        "superseded": 0,
        "fidelity": "A",  # settings and way of measuring are known from the code
        "model": run["model"],
        "method": run["method"],
        "method_config": json.dumps(run["settings"], sort_keys=True),
        "gpu": run["device"],
        "n_gpus": 1,
        "parallelism": "none",
        "micro_batch_size": training["micro_batch_size"],
        "grad_accum": training["gradient_accumulation_steps"],
        "seq_len": training["seq_len"],
        "seq_len_kind": _length_kind(run),
        "padding_packing": "padded" if training["padded"] else "none",
        "dataset": run.get("data", "random tokens"),
        "weights_dtype": training["dtype"],
        "compute_dtype": "autocast" if training["amp"] else training["dtype"],
        "quantization": training["quantization"],
        "optimizer": training["optimizer"],
        "gradient_checkpointing": training["gradient_checkpointing"],
        "attention": training["attention"],
        "status": "ok" if record.status == "done" else record.status,
        "notes": f"reached: {record.reached}",
    }
    return row if record.profile is None else {**row, **_measured(record.profile)}


def _length_kind(run: Mapping[str, Any]) -> str:
    """What the length is of, and for encoder-decoders of the catalog the target's length."""
    kind = "longest" if "data" in run else "exact"
    try:
        two = find_model(run["model"]).config.get("is_encoder_decoder")
    except UsageError:
        two = False
    return f"{kind}; target {run['training']['target_len']}" if two else kind


def _measured(profile: Mapping[str, Any]) -> dict[str, Any]:
    memory, time = profile["memory"], profile["time"]
    return {
        "model_params": profile["parameters"]["total"],
        "trainable_params": profile["parameters"]["trainable"],
        "gpu": profile["device"],
        "peak_memory_bytes": memory["allocated_peak_bytes"],
        "memory_kind": "allocated",
        "memory_scope": "per device",
        "peak_allocated_bytes": memory["allocated_peak_bytes"],
        "peak_reserved_bytes": memory.get("reserved_peak_bytes"),
        "nvidia_smi_bytes": (profile.get("device_use") or {}).get("peak_bytes"),
        "throughput": f"{time['tokens_per_s']:.6g}",
        "throughput_unit": "tokens/s",
        "throughput_scope": "per device",
        "train_time_s": f"{time['step_s']:.6g}",
        "train_time_kind": "median of one optimizer step",
        "versions": json.dumps(profile["provenance"]["versions"], sort_keys=True),
    }
