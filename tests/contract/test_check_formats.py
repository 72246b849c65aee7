"""What pipelines read keeps to the published schemas: SARIF 2.1.0, JUnit, and our own JSON."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from peftadvisor.integrations.checked import Checked
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from tests.check_formats import SARIF, junit_root, sarif_run
from tests.verdicts import PROBLEMS, fix_of, tight, verdict_of

ESTIMATE = jsonschema.Draft202012Validator(
    json.loads((Path(__file__).parent / "estimate.schema.json").read_text(encoding="utf-8"))
)


@pytest.fixture
def several(estimate: Estimate, oom_estimate: Estimate) -> Checked:
    return Checked(
        verdicts=(
            verdict_of(oom_estimate, problems=PROBLEMS, fix=fix_of(estimate)),
            verdict_of(estimate, path="/elsewhere/a b.yaml"),
            verdict_of(tight(estimate), path="c.yaml"),
        ),
        limits=("max-hours", "max-usd"),
    )


def test_sarif(several: Checked) -> None:
    run = sarif_run(RENDERERS["sarif"](several, Page()))
    assert len(run["artifacts"]) == 3
    # memory, hours, rate, key, note; key; memory, key
    assert [result["level"] for result in run["results"]] == [
        *("error", "error", "warning", "warning", "note"),
        "warning",
        *("error", "warning"),
    ]


def test_sarif_of_nothing() -> None:
    assert sarif_run(RENDERERS["sarif"](Checked(verdicts=()), Page()))["results"] == []


@pytest.mark.parametrize(
    ("name", "value"), [("level", "notice"), ("message", "text"), ("ruleIndex", -2), ("rule_id", 1)]
)
def test_the_sarif_schema_refuses(name: str, value: Any, several: Checked) -> None:
    log = json.loads(RENDERERS["sarif"](several, Page()))
    log["runs"][0]["results"][0][name] = value
    assert not SARIF.is_valid(log)


def test_junit(several: Checked) -> None:
    root = junit_root(RENDERERS["junit"](several, Page()))
    cases = [[case.get("name") for case in suite.iter("testcase")] for suite in root]
    asked = ["out-of-memory", "max-hours", "max-usd"]
    assert cases == [
        [*asked, "rate-outside-tested", "unknown-key", "alpha-and-rate"],
        [*asked, "unknown-key"],
        [*asked, "unknown-key"],
    ]
    failed = [suite.get("failures") for suite in root]
    assert failed == ["2", "0", "1"]


def test_junit_of_nothing() -> None:
    assert len(junit_root(RENDERERS["junit"](Checked(verdicts=()), Page()))) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda suite: suite.attrib.pop("failures"),
        lambda suite: suite.set("surprise", "1"),
        lambda suite: suite.append(ElementTree.Element("failure")),
        lambda suite: suite.find("testcase").set("file", "a.yaml"),
        lambda suite: suite.remove(suite.find("testcase")),
    ],
)
def test_the_junit_reader_refuses(change: Any, several: Checked) -> None:
    root = ElementTree.fromstring(RENDERERS["junit"](several, Page()))
    change(root[0])
    with pytest.raises(AssertionError):
        junit_root(ElementTree.tostring(root, encoding="unicode"))


def test_json_of_one(several: Checked) -> None:
    one = Checked(verdicts=several.verdicts[:1], limits=several.limits)
    data = json.loads(RENDERERS["json"](one, Page()))
    assert data == json.loads(json.dumps(several.verdicts[0].to_dict()))
    assert list(data) == ["schema_version", "config", "exit_code", "estimate", "problems", "fix"]
    ESTIMATE.validate(data["estimate"])
    ESTIMATE.validate(data["fix"]["estimate"])


def test_json_of_several(several: Checked) -> None:
    data = json.loads(RENDERERS["json"](several, Page()))
    assert list(data) == ["schema_version", "exit_code", "checks"]
    assert data["exit_code"] == 3
    assert [check["exit_code"] for check in data["checks"]] == [3, 0, 4]
    for check in copy.deepcopy(data["checks"]):
        ESTIMATE.validate(check["estimate"])
