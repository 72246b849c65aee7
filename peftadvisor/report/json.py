"""Any value as JSON: the contract for programs."""

from __future__ import annotations

import json

from peftadvisor.report.values import Page, Value


def render(value: Value, page: Page) -> str:
    """The value's plain data, indented, in the order of the contract."""
    return json.dumps(value.to_dict(), indent=2, allow_nan=False) + "\n"
