"""Types of model whose experts transformers merges while it loads, against its own mapping."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from transformers.conversion_mapping import get_checkpoint_conversion_mapping  # noqa: E402
from transformers.core_model_loading import MergeModulelist, WeightConverter  # noqa: E402

from peftadvisor.cost_model.loading import MERGED  # noqa: E402
from peftadvisor.data.models import find_model, model_ids  # noqa: E402


def merges(model_type: str) -> bool:
    mapping = get_checkpoint_conversion_mapping(model_type) or []
    return any(
        isinstance(operation, MergeModulelist)
        for entry in mapping
        if isinstance(entry, WeightConverter)
        for operation in entry.operations
    )


def test_all_that_are_named_merge() -> None:
    assert {name for name in MERGED if not merges(name)} == set()


def test_all_bundled_models_that_merge_are_named() -> None:
    types = {find_model(name).config.get("model_type") for name in model_ids()}
    assert {name for name in types if isinstance(name, str) and merges(name)} <= MERGED
