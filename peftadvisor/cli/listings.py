"""The catalogs as rows to show; one function per kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from peftadvisor.report import Listing, Sheet

if TYPE_CHECKING:
    from peftadvisor.methods.base import Method


def _models() -> Listing:
    from peftadvisor.data.models import find_model, max_positions, model_ids
    from peftadvisor.simulator.library import bundled_keys

    shipped = bundled_keys()
    models = [find_model(name) for name in model_ids()]
    return Listing(
        kind="models",
        columns=("id", "model_type", "parameters", "max_positions", "needs"),
        rows=tuple(
            {
                "id": model.id,
                "model_type": model.model_type,
                "parameters": model.parameters,
                "checkpoint_parameters": model.checkpoint_parameters,
                "max_positions": max_positions(model),
                "needs": None if model.config_key in shipped else "torch",
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
        rows=tuple(_method(find_method(name)) for name in method_names()),
    )


def _method(method: Method) -> dict[str, Any]:
    return {
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


def method_sheet(name: str) -> Sheet:
    """All that is known of one method.

    Raises:
        UnknownNameError: there is none of that name.
    """
    from peftadvisor.data.recommendations import load_recommendations
    from peftadvisor.methods import find_method

    method, known = find_method(name), load_recommendations()
    axes = method.axes
    facts = {
        "Family": f"{method.family}, {method.year}",
        "Source": method.citation,
        "Storage": f"few parameters to keep: {axes.storage}",
        "Memory": f"less than full fine-tuning: {axes.memory}",
        "Backward": f"spares the backbone: {axes.backprop}",
        "Inference": f"added: {axes.inference} (these four: {axes.confidence})",
        "Merging": "into the weights" if method.mergeable else "no",
        "Several": f"adapters at once: {_yes(method.several)}",
        "Quantized": f"base: {method.quantization or _yes(method.quantized_base)}",
        "Advice": "\n".join(f"{r}: {known[r].statement}" for r in method.rules if r in known),
        "Not here": method.unavailable,
    }
    table = Listing(
        kind="hyperparameters",
        columns=("name", "default", "low", "high", "rule", "source"),
        rows=tuple(asdict(parameter) for parameter in method.hyperparameters),
    )
    return Sheet(
        title=f"{method.name}: {method.title}", facts=facts, table=table, data=_method(method)
    )


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


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
