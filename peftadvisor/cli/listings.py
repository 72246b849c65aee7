"""The catalogs as rows to show; one function per kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

from peftadvisor.report import Listing


def _models() -> Listing:
    from peftadvisor.data.models import find_model, max_positions, model_ids

    models = [find_model(name) for name in model_ids()]
    return Listing(
        kind="models",
        columns=("id", "model_type", "parameters", "max_positions"),
        rows=tuple(
            {
                "id": model.id,
                "model_type": model.model_type,
                "parameters": model.parameters,
                "checkpoint_parameters": model.checkpoint_parameters,
                "max_positions": max_positions(model),
                "provenance": model.provenance,
            }
            for model in models
        ),
    )


def _gpus() -> Listing:
    from peftadvisor.data.gpus import load_gpus

    return Listing(
        kind="gpus",
        columns=("id", "name", "usable_bytes", "bf16_flops_per_s", "memory_bandwidth_bytes_per_s"),
        rows=tuple(
            {
                **asdict(gpu),
                "bf16_flops_per_s": gpu.peak_flops_per_s.get("bf16"),
            }
            for gpu in load_gpus().values()
        ),
    )


def _methods() -> Listing:
    from peftadvisor.methods import find_method, method_names

    return Listing(
        kind="methods",
        columns=("name", "title", "family", "year", "citation"),
        rows=tuple(
            {
                "name": method.name,
                "title": method.title,
                "family": method.family,
                "year": method.year,
                "citation": method.citation,
                "axes": asdict(method.axes),
                "hyperparameters": [asdict(parameter) for parameter in method.hyperparameters],
                "quantization": method.quantization,
                "mergeable": method.mergeable,
                "several_at_once": method.several,
                "quantized_base": method.quantized_base,
                "rules": list(method.rules),
                "unavailable": method.unavailable,
            }
            for method in map(find_method, method_names())
        ),
    )


def _prices() -> Listing:
    from peftadvisor.data.prices import load_prices

    return Listing(
        kind="prices",
        columns=(
            "gpu_id",
            "provider",
            "instance",
            "usd_per_gpu_hour",
            "spot_usd_per_gpu_hour",
            "date",
        ),
        rows=tuple(asdict(price) for price in load_prices()),
    )


KINDS: Mapping[str, Callable[[], Listing]] = {
    "gpus": _gpus,
    "methods": _methods,
    "models": _models,
    "prices": _prices,
}


def matching(listing: Listing, text: str) -> Listing:
    """The rows that hold the text, in any of the columns shown, without regard to case."""
    wanted = text.lower()
    rows = tuple(
        row
        for row in listing.rows
        if any(wanted in str(row[name]).lower() for name in listing.columns)
    )
    return replace(listing, rows=rows)
