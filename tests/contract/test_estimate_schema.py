"""The JSON of an estimate and of a recommendation keeps to the published schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page

SCHEMA = json.loads((Path(__file__).parent / "estimate.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def as_json(value: Any) -> Any:
    return json.loads(RENDERERS["json"](value, Page()))


def check_memory(memory: dict[str, Any]) -> None:
    """What a schema cannot say: the parts sum to the device peak, and the levels are in order."""
    assert sum(memory["breakdown"].values()) == memory["device_peak_bytes"]
    assert memory["allocated_peak_bytes"] <= memory["reserved_peak_bytes"]
    assert memory["reserved_peak_bytes"] <= memory["device_peak_bytes"]
    assert memory["low_bytes"] <= memory["device_peak_bytes"] <= memory["high_bytes"]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", ["estimate", "oom_estimate"])
def test_an_estimate_keeps_to_the_schema(name: str, request: pytest.FixtureRequest) -> None:
    value: Estimate = request.getfixturevalue(name)
    data = as_json(value)
    VALIDATOR.validate(data)
    check_memory(data["memory"])
    flops = data["flops"]
    parts = ("forward", "backward", "recompute", "optimizer")
    assert flops["total"] == sum(flops[part] for part in parts)


def test_a_recommendation_holds_estimates(recommendation: Any) -> None:
    data = as_json(recommendation)
    kinds = ["picks", "recommendations", "rejected", "further", "ways_out", "pilot", "notes"]
    assert list(data) == ["schema_version", "question", *kinds, "weighed"]
    for entry in [*data["recommendations"], *(pick["estimate"] for pick in data["picks"])]:
        assert entry.pop("why")
        assert isinstance(entry.pop("citations"), list)
        assert isinstance(entry.pop("pareto"), bool)
        for advised in entry.pop("hyperparameters"):
            assert {"name", "value", "rule", "source", "confidence"} <= set(advised)
        for finding in entry.pop("findings"):
            assert finding["kind"] in ("supports", "warns", "conflict")
        VALIDATOR.validate(entry)
        check_memory(entry["memory"])
    for rejection in data["rejected"]:
        assert list(rejection) == ["method", "reason", "over_by_bytes", "estimate"]
        if rejection["estimate"] is not None:
            VALIDATOR.validate(rejection["estimate"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "perhaps"),
        (("memory", "device_peak_bytes"), 1.5),
        (("memory", "device_peak_bytes"), -1),
        (("memory", "breakdown", "weights_bytes"), None),
        (("oom_probability",), 1.1),
        (("time", "step_s"), "2.5 s"),
        (("cost", "usd_per_hour"), -1),
        (("run", "gpus"), 0),
        (("surprise",), 1),
    ],
)
def test_the_schema_refuses(path: tuple[str, ...], value: Any, estimate: Estimate) -> None:
    data = copy.deepcopy(as_json(estimate))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not VALIDATOR.is_valid(data)
