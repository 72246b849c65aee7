"""Pages of reports: whole, accessible, nothing fetched, names are text; and their other forms."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftadvisor.errors import UsageError
from peftadvisor.integrations.answers import Story, answer
from peftadvisor.integrations.stories import told
from peftadvisor.profiles import Estimate, Evidence
from peftadvisor.report import RENDERERS, Page
from peftadvisor.report.canvas import plain
from peftadvisor.report.picture import figures, svg, write_figure
from peftadvisor.specs import MethodSpec
from tests.golden.test_validation import VALIDATION
from tests.report_values import plain_comparison, plain_profiles
from tests.unit.test_html import HOSTILE, Reader

KINDS = ("estimate", "oom_estimate", "recommendation", "comparison", "profiles")


def story(kind: str, request: pytest.FixtureRequest) -> Story:
    if kind == "comparison":
        made: Any = answer(plain_comparison(request.getfixturevalue("estimate")), "x")
    elif kind == "profiles":
        made = answer(plain_profiles(), "x")
    else:
        made = told(request.getfixturevalue(kind))
    return Story(source="answer.json", answer=made)


def html(value: Any) -> str:
    return RENDERERS["html"](value, Page())


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_whole(kind: str, request: pytest.FixtureRequest) -> None:
    page = html(story(kind, request))
    reader = Reader(page)
    assert reader.open == []
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    links = [href[1:] for href in reader.values("href") if href.startswith("#")]
    labels = [*reader.values("aria-labelledby"), *reader.values("aria-describedby")]
    assert {*links, *labels, *reader.values("for")} - {""} <= set(ids)
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched(kind: str, request: pytest.FixtureRequest) -> None:
    reader = Reader(html(story(kind, request)))
    assert reader.values("src") == []
    assert {tag for tag, _ in reader.elements} & {"img", "iframe", "object", "embed"} == set()
    outward = [href for href in reader.values("href") if href[0] != "#" and href != "data:,"]
    assert all(href.startswith("https://") for href in outward)
    linked = [tag for tag, attrs in reader.elements if attrs.get("href") in outward]
    assert set(linked) <= {"a"}


@pytest.mark.parametrize("kind", KINDS)
def test_only_our_scripts_may_run(kind: str, request: pytest.FixtureRequest) -> None:
    page = html(story(kind, request))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert policy[1].endswith("script-src " + " ".join(f"'sha256-{h}'" for h in hashes))
    assert len(scripts) == 1  # a file holds no recording, so there is no what-if


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_and_table_says_what_it_is(kind: str, request: pytest.FixtureRequest) -> None:
    reader = Reader(html(story(kind, request)))
    drawn = [attrs for attrs in reader.all("svg") if attrs.get("aria-hidden") != "true"]
    assert drawn
    assert all(attrs["aria-label"] and attrs["aria-describedby"] for attrs in drawn)
    assert len(reader.all("table")) == reader.inside["table", "caption"]
    assert reader.inside["svg", "path"] > 0


def test_sections(request: pytest.FixtureRequest) -> None:
    def titles(kind: str) -> list[str]:
        reader = Reader(html(story(kind, request)))
        return [v for v in reader.values("id") if v.endswith("-section")]

    alone = ["answer", "memory", "flops", "grounds"]
    assert titles("estimate") == [f"{name}-section" for name in alone]
    several = ["methods", "pareto", "answer", "flops", "refused", "grounds"]
    assert titles("comparison") == [f"{name}-section" for name in several]
    advice = ["answer", "memory", "methods", "pareto", "flops", "hyperparameters", "findings"]
    advice += ["pilot", "rejected", "grounds"]
    assert titles("recommendation") == [f"{name}-section" for name in advice]
    assert titles("profiles") == [
        f"{n}-section" for n in ("answer", "phases", "timeline", "grounds")
    ]


def test_what_the_page_says(request: pytest.FixtureRequest) -> None:
    text = " ".join(" ".join(Reader(html(story("oom_estimate", request))).texts).split())
    # 45.945 GiB predicted, 39 usable
    assert "Does not fit: 45.9 of 39.0 GiB, 6.95 GiB too much, risk of running out 99.9 %" in text
    assert "activation 23.00 GiB" in text
    assert "Not here, since a file of JSON holds no recording" in text


def test_what_has_no_evidence_is_in_no_front(oom_estimate: Estimate) -> None:
    made = Story(source="x", answer=answer(plain_comparison(oom_estimate), "x"))
    assert "front-memory" not in figures(made)
    assert "Without a comparison that counts here: lora, ia3." in "".join(Reader(html(made)).texts)


def test_a_validation_has_the_page_it_had() -> None:
    assert html(Story(source="x", answer=VALIDATION)) == html(VALIDATION)


# -- Hostile names ---------------------------------------------------------------


def named(estimate: Estimate, name: str) -> Story:
    """A comparison in which everything that has a name has this one."""
    run = replace(
        estimate.run,
        model=replace(estimate.run.model, id=name),
        gpu=replace(estimate.run.gpu, id=name, name=name),
        method=MethodSpec(name=name, settings=(("targets", name),)),
    )
    made = replace(
        estimate,
        run=run,
        reasons=(name,),
        evidence=Evidence(
            label=name, probability_at_least_lora=0.5, low=0.4, high=0.6, sources=(name,)
        ),
        memory=replace(estimate.memory, peak_phase=name, peak_op=name),
        provenance=replace(estimate.provenance, recording=name, versions={name: name}),
        cost=replace(estimate.cost, price_source=name),
    )
    data = plain_comparison(made)
    data["refused"] = [{"method": name, "reason": name}]
    return Story(source=name, answer=answer(data, "x"))


def shape(page: str) -> list[tuple[str, list[str]]]:
    """Elements and the names of their attributes."""
    return [(tag, sorted(attrs)) for tag, attrs in Reader(page).elements]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str, estimate: Estimate) -> None:
    page = html(named(estimate, name))
    assert shape(page) == shape(html(named(estimate, "x")))
    reader = Reader(page)
    assert len([text for text in reader.texts if plain(name)[:20] in text]) >= 10
    assert not any("\u202e" in text or "\x00" in text for text in reader.texts)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60))
def test_any_name_is_text(name: str, estimate: Estimate) -> None:
    assert shape(html(named(estimate, name))) == shape(html(named(estimate, "x")))


@pytest.mark.parametrize("name", HOSTILE)
def test_profiles_of_any_name(name: str) -> None:
    page = html(Story(source=name, answer=answer(plain_profiles(name), "x")))
    assert shape(page) == shape(html(Story(source="x", answer=answer(plain_profiles(), "x"))))


# -- Markdown and single figures ---------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_markdown(kind: str, request: pytest.FixtureRequest) -> None:
    text = RENDERERS["markdown"](story(kind, request), Page())
    assert text.startswith("# ")
    tables = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    assert tables
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().splitlines()}
        assert len(cells) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=60))
def test_names_add_nothing_to_markdown(name: str, estimate: Estimate) -> None:
    """As many lines and cells, and no tag or link, whatever things are called."""

    def counted(word: str) -> tuple[int, int, int]:
        text = RENDERERS["markdown"](named(estimate, word), Page())
        bare = re.sub(r"\\.", "", text)
        return text.count("\n"), bare.count("|"), bare.count("<") + bare.count("[")

    assert counted(name) == counted("x")


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_stands_alone(kind: str, request: pytest.FixtureRequest) -> None:
    found = figures(story(kind, request))
    assert found
    for drawing in found.values():
        root = ElementTree.fromstring(svg(drawing))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in svg(drawing)
        assert "href" not in svg(drawing)


def test_figures_by_name_and_ending(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = story("estimate", request)
    write_figure(made, "memory-bar", tmp_path / "m.svg")
    assert (tmp_path / "m.svg").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(UsageError, match="no figure is called 'x' here; there are: memory-bar, fl"):
        write_figure(made, "x", tmp_path / "x.svg")
    with pytest.raises(UsageError, match="neither .svg nor .png"):
        write_figure(made, "memory-bar", tmp_path / "m.gif")


def test_a_picture(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("cairosvg", reason="needs cairosvg: pip install cairosvg")
    write_figure(story("estimate", request), "memory-bar", tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
