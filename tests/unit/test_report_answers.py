"""Answers read back from JSON: the same as was written, and no stranger's file breaks anything."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from peftadvisor.cli.main import main
from peftadvisor.data.shapes import shaped
from peftadvisor.errors import UsageError
from peftadvisor.integrations.answers import Story, answer, read_answer
from peftadvisor.integrations.stories import told
from peftadvisor.integrations.told import Told, ToldComparison, ToldProfiles, ToldRecommendation
from peftadvisor.integrations.validation import Validation
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from tests.golden.test_validation import VALIDATION
from tests.report_values import plain_comparison, plain_profiles


def test_an_estimate_comes_back_as_it_was(estimate: Estimate) -> None:
    back = told(estimate)
    assert isinstance(back, Told)
    for part in ("memory", "parameters", "flops", "time", "cost", "evidence", "provenance"):
        assert getattr(back, part) == getattr(estimate, part)
    assert back.run.training == estimate.run.training
    assert back.run.method_config == {"alpha": 32, "rank": 16}
    assert (back.gpu.id, back.gpu.usable_bytes) == ("acme-40g", estimate.run.gpu.usable_bytes)


def test_each_kind_is_told_by_what_is_in_it(recommendation: Any, estimate: Estimate) -> None:
    assert isinstance(told(recommendation), ToldRecommendation)
    assert isinstance(answer(plain_comparison(estimate), "x"), ToldComparison)
    assert isinstance(answer(plain_profiles(), "x"), ToldProfiles)
    kept = {"profile": plain_profiles()["profiles"][0], "run": {}}
    assert isinstance(answer(kept, "x"), ToldProfiles)


def test_a_validation_comes_back_as_it_was() -> None:
    back = told(VALIDATION)
    assert isinstance(back, Validation)
    assert back.to_dict() == VALIDATION.to_dict()
    assert RENDERERS["html"](back, Page()) == RENDERERS["html"](VALIDATION, Page())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not valid JSON (line 1, column 1"),
        ("[1]", "holds no JSON object"),
        ('{"a": 1}', "holds no answer that a report is made of"),
        ('{"estimates": [], "refused": []}', "estimates is empty"),
        ('{"profiles": []}', "profiles is empty"),
        ('{"profiles": 3}', "profiles is 3; it must be a list"),
        ('{"groups": [], "file": "x"}', "groups has no group of all rows"),
        ('{"estimates": [7], "refused": []}', "estimates[0] is 7; it must be an object"),
        ("[" * 100_000, "nesting beyond any answer"),
        ('{"a": ' + "9" * 10_000 + "}", "numbers or nesting"),
    ],
)
def test_bad_files_are_one_line(
    content: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.json"
    path.write_text(content, encoding="utf-8")
    assert main(["report", str(path), "--out", str(tmp_path / "page.html")]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert "answer.json" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no file"):
        read_answer(tmp_path / "nowhere.json")
    with pytest.raises(UsageError, match="is no file"):
        read_answer(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_answer(tmp_path / "binary")


def test_errors_name_the_key(estimate: Estimate) -> None:
    data = json.loads(json.dumps(estimate.to_dict()))
    del data["memory"]["breakdown"]
    with pytest.raises(UsageError, match=r"^f\.json\.memory has no key 'breakdown'"):
        answer(data, "f.json")
    data = json.loads(json.dumps(estimate.to_dict()))
    data["time"]["step_s"] = "soon"
    with pytest.raises(UsageError, match=r"^f\.json\.time\.step_s is 'soon'; it must be a number"):
        answer(data, "f.json")
    data = json.loads(json.dumps(estimate.to_dict()))
    data["run"]["training"]["dtype"] = "bf17"
    with pytest.raises(UsageError, match=r"training\.dtype is 'bf17'; it must be one of bf16"):
        answer(data, "f.json")


@dataclass(frozen=True)
class Shape:
    a: int
    b: float | None
    c: tuple[str, ...] = ()
    d: Literal["x", "y"] = "x"
    e: tuple[int, str] = (1, "")
    f: int | str | bool = 0


def test_shapes() -> None:
    read = shaped(Shape, {"a": 1, "b": 2, "c": ["p"], "d": "y", "e": [3, "q"], "other": 4}, "w")
    assert read == Shape(1, 2.0, ("p",), "y", (3, "q"))
    assert shaped(Shape, {"a": 1, "b": None, "f": "text"}, "w").f == "text"
    assert shaped(Shape, {"a": 1, "b": None, "f": True}, "w").f is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": True, "b": 1},
        {"a": 1.5, "b": 1},
        {"a": 10**30, "b": 1},
        {"a": 1, "b": float("nan")},
        {"a": 1, "b": float("inf")},
        {"a": 1, "b": "1"},
        {"a": 1, "b": 1, "c": "text"},
        {"a": 1, "b": 1, "c": [1]},
        {"a": 1, "b": 1, "d": "z"},
        {"a": 1, "b": 1, "d": ["x"]},
        {"a": 1, "b": 1, "e": [1]},
        {"a": 1, "b": 1, "f": {}},
        {"a": 1},
        [],
    ],
)
def test_wrong_shapes_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="^w"):
        shaped(Shape, wrong, "w")


# -- Strangers' data ------------------------------------------------------------------------------

ODD = (
    *(0, -1, 1, 10**24, -(10**24), 0.0, 1e-300, 1e300, -1e300),
    *("", "<script>alert(1)</script>", "\"quoted\" & 'so'", "x" * 300, "שלום \u202eevil", "\ud800"),
    *(None, True, [], {}, ["x"], {"x": 1}, float("nan"), float("inf")),
)


def places(data: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Ways to every value inside."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from places(value, (*way, key))


def changed(data: Any, way: tuple[Any, ...], value: Any) -> Any:
    made = copy.deepcopy(data)
    inside = made
    for key in way[:-1]:
        inside = inside[key]
    inside[way[-1]] = value
    return made


def of_its_kind(data: Any, way: tuple[Any, ...], chance: random.Random) -> Any:
    """An odd value, mostly of the type that stands there."""
    for key in way:
        data = data[key]
    alike = [odd for odd in ODD if type(odd) is type(data)]
    return chance.choice(alike if alike and chance.random() < 0.8 else ODD)


@pytest.mark.parametrize("kind", ["estimate", "recommendation", "comparison", "profiles", "rows"])
def test_any_value_anywhere_is_refused_or_shown(kind: str, request: pytest.FixtureRequest) -> None:
    """Each of 400 files with up to three values changed makes a page and Markdown, or an error."""
    data = plain(kind, request)
    chance, shown = random.Random(5), 0
    for _ in range(400):
        made = data
        for _ in range(chance.randint(1, 3)):
            way = chance.choice(list(places(made)))
            made = changed(made, way, of_its_kind(made, way, chance))
        try:
            read = answer(made, "f.json")
        except UsageError:
            continue
        story = Story(source="f.json", answer=read)
        assert RENDERERS["html"](story, Page()).endswith("</html>\n")
        assert RENDERERS["markdown"](story, Page())
        shown += 1
    assert shown > 40


def plain(kind: str, request: pytest.FixtureRequest) -> Any:
    if kind == "comparison":
        return plain_comparison(request.getfixturevalue("estimate"))
    if kind == "profiles":
        return plain_profiles()
    value = VALIDATION if kind == "rows" else request.getfixturevalue(kind)
    return json.loads(json.dumps(value.to_dict()))
