"""YAML that nothing in a value can break out of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def yaml_text(head: str, values: Mapping[str, Any]) -> str:
    """A comment and a mapping, in its order."""
    import yaml  # 20 ms of import that only exports need

    body: str = yaml.safe_dump(dict(values), sort_keys=False, width=100)
    return f"{head}\n{body}"


def told(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are None: what is left to the tool."""
    return {name: value for name, value in values.items() if value is not None}
