"""Words and numbers of validation as reports show them, in text and in HTML."""

from __future__ import annotations

from collections.abc import Mapping

from peftadvisor.cost_model.accuracy import Quantity

WHAT: Mapping[Quantity, str] = {
    "allocated": "allocated memory",
    "reserved": "reserved memory",
    "device": "device memory",
    "step": "step time",
}
NAMES: Mapping[str, str] = {"source": "source", "method": "method", "gpu": "GPU"}
"""What groups of rows have in common."""


def share(part: float | None) -> str:
    """A share in percent; a dash where there is none."""
    return "–" if part is None else f"{100 * part:.1f} %"


def signed(error: float) -> str:
    """A relative error in percent, with its sign unless it is nothing."""
    rounded = round(100 * error, 1)
    return f"{rounded:+.1f} %" if rounded else "0.0 %"
