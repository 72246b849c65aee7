"""Whatever stands in paths, messages, keys and words: every format stays valid, text stays text."""

from __future__ import annotations

import json
import string
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from peftadvisor.integrations.checked import Checked
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from peftadvisor.report.checks import clean, place
from peftadvisor.report.diffs import hunks
from tests.check_formats import github_commands, junit_root, sarif_run, sarif_text
from tests.verdicts import HOSTILE, diff_of, hostile_verdict

NASTY = st.sampled_from([*HOSTILE, "%", "%25", "::", "\r", "\n", "\x00", "\x1b", "{0}", "](", "<"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(NASTY | st.text(max_size=5)).map("".join))
many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rendered(fmt: str, estimate: Estimate, text: str) -> str:
    return RENDERERS[fmt](Checked(verdicts=(hostile_verdict(estimate, text),)), Page(width=80))


def is_printable(text: str) -> bool:
    return all(c.isprintable() or c == "\n" for c in text)


@many
@given(TEXTS)
def test_sarif(oom_estimate: Estimate, text: str) -> None:
    run = sarif_run(rendered("sarif", oom_estimate, text))
    memory, lint = run["results"][:2]
    assert sarif_text(lint["message"]) == clean(text).replace("] (", "](")
    assert is_printable(sarif_text(memory["message"]))
    assert run["results"][-1]["level"] == "note"


@many
@given(TEXTS)
def test_junit(oom_estimate: Estimate, text: str) -> None:
    root = junit_root(rendered("junit", oom_estimate, text))
    (suite,) = root
    assert suite.get("name") == clean(place(text))
    failures = [case.find("failure") for case in suite.iter("testcase")][:2]
    assert [one is not None and one.get("message") for one in failures] == [clean(text)] * 2
    assert all(is_printable(part) for part in root.itertext())


@many
@given(TEXTS)
def test_github(oom_estimate: Estimate, text: str) -> None:
    found = github_commands(rendered("github", oom_estimate, text))
    commands = [one.command for one in found]
    assert commands == ["error", "error", "warning", "notice", "notice"]
    said = f"{text}\nSource: {text}" if text else text
    assert found[1].message == clean(said.rstrip("\n"))
    assert found[1].properties["file"] == clean(place(text))
    assert found[1].properties["line"] == "3"
    assert all(is_printable(one.message) for one in found)


@many
@given(TEXTS, st.sampled_from([60, 80, 100, 200]))
def test_text(oom_estimate: Estimate, text: str, width: int) -> None:
    checked = Checked(verdicts=(hostile_verdict(oom_estimate, text),))
    shown = RENDERERS["text"](checked, Page(width=width))
    assert is_printable(shown)
    assert max(map(cell_len, shown.splitlines())) <= width


@many
@given(TEXTS)
def test_json(oom_estimate: Estimate, text: str) -> None:
    data = json.loads(rendered("json", oom_estimate, text))
    assert data["config"]["path"] == data["config"]["unknown_keys"][0] == text
    assert {problem["message"] for problem in data["problems"]} == {text}


@pytest.mark.parametrize("fmt", ["text", "junit", "github", "sarif", "json"])
@pytest.mark.parametrize(("path", "text"), [("a.yaml", "\ud800"), ("a \udcff.yaml", "\udcff")])
def test_what_is_no_unicode(fmt: str, path: str, text: str, oom_estimate: Estimate) -> None:
    """JSON may hold lone surrogates, and a path's bytes that are no UTF-8 come as such."""
    verdict = replace(hostile_verdict(oom_estimate, text), path=path)
    written = RENDERERS[fmt](Checked(verdicts=(verdict,)), Page()).encode("utf-8")
    assert (b"a%20%FF.yaml" in written) == (fmt == "sarif" and path != "a.yaml")


LINES = st.lists(st.text(string.ascii_lowercase + " :{}#\u05e9@+-", max_size=6), min_size=1)


@given(LINES, LINES, st.sampled_from(["\n", "\r\n"]))
def test_hunks_turn_the_old_text_into_the_new(old: list[str], new: list[str], end: str) -> None:
    """As an editor applies them, from the last to the first."""
    before, after = (end.join([*lines, ""]) for lines in (old, new))
    lines = before.split("\n")
    found = hunks(diff_of("a.yaml", before, after))
    assert found or before == after
    for hunk in reversed(found):
        kept = "\r" if lines[hunk.last - 1].endswith("\r") else ""
        lines[hunk.first - 1 : hunk.last] = (hunk.text + kept).split("\n")
    assert "\n".join(lines) == after
