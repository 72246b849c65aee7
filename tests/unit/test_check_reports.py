"""What the reports of a check say: order, rules, places, and a change that can be applied."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.checked import Checked, Problem
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from peftadvisor.report.checks import headline, place, remarks, unknown_words
from peftadvisor.report.diffs import Hunk, hunks
from tests.check_formats import github_commands, junit_root, sarif_run
from tests.verdicts import PROBLEMS, SMALLER, TEXT, config_of, fix_of, tight, verdict_of


def text_of(checked: Checked, width: int = 100) -> str:
    return RENDERERS["text"](checked, Page(width=width))


def test_the_worst_exit_code(estimate: Estimate, oom_estimate: Estimate) -> None:
    fits, risky, oom = map(verdict_of, (estimate, tight(estimate), oom_estimate))
    assert Checked(verdicts=()).exit_code == 0
    assert Checked(verdicts=(fits,)).exit_code == 0
    assert Checked(verdicts=(fits, risky, fits)).exit_code == 4
    assert Checked(verdicts=(risky, oom, fits)).exit_code == 3
    assert Checked(verdicts=(risky, verdict_of(estimate, problems=PROBLEMS))).exit_code == 3


def test_the_verdict_is_the_first_line(estimate: Estimate, oom_estimate: Estimate) -> None:
    def first_line(value: Estimate, problems: tuple[Problem, ...] = ()) -> str:
        return text_of(Checked(verdicts=(verdict_of(value, problems=problems),))).split("\n")[0]

    # 29.945 GiB, see conftest; 16 GiB more are 45.945, of which 6.945 are above 39.
    assert first_line(estimate) == "✔ fits: 29.9 of 39.0 GiB, OOM risk 0.3 %"
    assert first_line(tight(estimate)) == "! tight: 29.9 of 39.0 GiB, OOM risk 7 %"
    assert first_line(estimate, PROBLEMS) == (
        "✘ fits, but fails max-hours: 29.9 of 39.0 GiB, OOM risk 0.3 %"
    )
    assert first_line(oom_estimate).startswith(
        "✘ does not fit: 45.9 of 39.0 GiB, 6.95 GiB too much, OOM risk"
    )


def test_a_headline_names_each_rule_once(oom_estimate: Estimate) -> None:
    memory = Problem(rule="out-of-memory", level="error", message="does not fit")
    verdict = verdict_of(oom_estimate, problems=(memory, *PROBLEMS, PROBLEMS[0]))
    assert headline(verdict) == "does not fit, and fails max-hours"


def test_remarks_come_worst_first(oom_estimate: Estimate) -> None:
    verdict = verdict_of(oom_estimate, problems=tuple(reversed(PROBLEMS)))
    assert [(one.level, one.rule) for one in remarks(verdict)] == [
        ("error", "out-of-memory"),
        ("error", "max-hours"),
        ("warning", "rate-outside-tested"),
        ("warning", "unknown-key"),
        ("note", "alpha-and-rate"),
    ]


def test_what_was_said_is_not_said_again(oom_estimate: Estimate) -> None:
    said = (
        Problem(rule="out-of-memory", level="error", message="it would not fit", line=3),
        Problem(rule="unknown-key", level="note", message="what is 'frobnicate'?"),
    )
    assert remarks(verdict_of(oom_estimate, problems=said)) == said


def test_a_run_that_fits_and_has_no_odd_keys_leaves_nothing_to_say(estimate: Estimate) -> None:
    verdict = verdict_of(estimate, config=config_of(estimate, unknown=()))
    assert remarks(verdict) == ()
    (only,) = github_commands(RENDERERS["github"](Checked(verdicts=(verdict,)), Page()))
    assert (only.command, only.properties["title"]) == ("notice", "peftadvisor: fits")


def test_many_unknown_keys_are_cut() -> None:
    keys = tuple(f"key{number}" for number in range(22))
    assert unknown_words(keys).endswith("key18, key19 and 2 more")


def test_annotations_stand_at_file_and_line(oom_estimate: Estimate, estimate: Estimate) -> None:
    verdict = verdict_of(oom_estimate, problems=PROBLEMS, fix=fix_of(estimate))
    found = github_commands(RENDERERS["github"](Checked(verdicts=(verdict,)), Page()))
    memory, hours, rate = found[:3]
    assert "line" not in memory.properties
    assert "Smallest change that fits: micro_batch_size from 8 to 2: then 29.95 GiB" in (
        memory.message
    )
    assert memory.message.endswith("+micro_batch_size: 2\n num_epochs: 3")
    assert hours.properties == {
        "file": "configs/run.yaml",
        "line": "4",
        "title": "peftadvisor: max-hours",
    }
    assert rate.message == "2e-4 is above every rate that was tested\nSource: two studies"


def test_errors_of_all_configs_come_before_warnings(oom_estimate: Estimate) -> None:
    """GitHub shows ten of each."""
    verdicts = tuple(
        verdict_of(oom_estimate, path=f"{number}.yaml", problems=PROBLEMS) for number in range(3)
    )
    found = github_commands(RENDERERS["github"](Checked(verdicts=verdicts), Page()))
    # of each: memory and hours; rate and key; note and summary
    assert [one.command for one in found] == ["error"] * 6 + ["warning"] * 6 + ["notice"] * 6


def test_a_limit_that_is_kept_is_a_case_that_passes(estimate: Estimate) -> None:
    checked = Checked(verdicts=(verdict_of(estimate, problems=PROBLEMS),), limits=("max-usd",))
    (suite,) = junit_root(RENDERERS["junit"](checked, Page()))
    failed = {case.get("name"): case.find("failure") is not None for case in suite.iter("testcase")}
    assert failed == {
        "out-of-memory": False,
        "max-usd": False,
        "max-hours": True,
        "rate-outside-tested": False,
        "unknown-key": False,
        "alpha-and-rate": False,
    }
    rate = suite.find("testcase[@name='rate-outside-tested']/system-out")
    assert rate is not None
    assert rate.text == (
        "warning: 2e-4 is above every rate that was tested\n  lr, line 2\n  Source: two studies"
    )


def sarif_of(estimate: Estimate, **changes: Any) -> Any:
    checked = Checked(verdicts=(verdict_of(estimate, **changes),))
    return sarif_run(RENDERERS["sarif"](checked, Page()))


def test_sarif_says_where(estimate: Estimate) -> None:
    results = sarif_of(estimate, path="configs/a b#1.yaml", problems=PROBLEMS)["results"]
    location = results[1]["locations"][0]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "configs/a%20b%231.yaml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 2},
    }
    assert location["logicalLocations"] == [{"fullyQualifiedName": "lr"}]
    # of the config as a whole
    assert results[3]["ruleId"] == "alpha-and-rate"
    assert results[3]["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}


def test_sarif_rules_name_their_sources(estimate: Estimate) -> None:
    rules = {
        rule["id"]: rule
        for rule in sarif_of(estimate, problems=PROBLEMS)["tool"]["driver"]["rules"]
    }
    assert rules["rate-outside-tested"]["help"]["text"].endswith("\nSource: two studies")
    assert "Source" not in rules["alpha-and-rate"]["help"]["text"]
    assert rules["max-hours"]["fullDescription"]["text"] == (
        "The job would last longer than was allowed."
    )


def test_a_sarif_fix_gives_the_fixed_file(estimate: Estimate, oom_estimate: Estimate) -> None:
    results = sarif_of(oom_estimate, problems=PROBLEMS, fix=fix_of(estimate))["results"]
    assert ["fixes" in result for result in results] == [True, False, False, False, False]
    (change,) = results[0]["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"]["uri"] == "configs/run.yaml"
    (replacement,) = change["replacements"]
    region = replacement["deletedRegion"]
    assert region == {"startLine": 1, "startColumn": 1, "endLine": 4}
    assert TEXT.count("\n") == 4
    assert replacement["insertedContent"]["text"] + "\n" == SMALLER


def test_a_change_that_the_tool_has_no_key_for(estimate: Estimate, oom_estimate: Estimate) -> None:
    fix = replace(fix_of(estimate), words="", diff="", text="")
    assert "fixes" not in sarif_of(oom_estimate, fix=fix)["results"][0]
    text = text_of(Checked(verdicts=(verdict_of(oom_estimate, fix=fix),)), width=200)
    assert "micro_batch_size = 2 (axolotl has no key for it): then 29.95 GiB" in text


@pytest.mark.parametrize(
    "diff",
    [
        "",
        "no diff at all",
        "--- a\n+++ a\n@@ -1,2 +1,2 @@\n one\n",  # fewer lines than its head says
        "--- a\n+++ a\n@@ -0,0 +1 @@\n+new\n",  # nothing to replace
        "--- a\n+++ a\n@@ -1 +0,0 @@\n-old\n",  # nothing left
        "--- a\n+++ a\n@@ -1 +1 @@\n-a+b\n",  # no line break at the end of the old file
        "--- a\n+++ a\n@@ -1 +1 @@\n-a\n+b\n@@ -9 +9 @@\n",  # the second hunk is empty
    ],
)
def test_diffs_that_are_not_understood_give_no_fix(diff: str) -> None:
    assert hunks(diff) == ()


def test_hunks_of_two_places() -> None:
    diff = "--- a\n+++ a\n@@ -1 +1,2 @@\n-a\n+b\n+c\n@@ -9,2 +10,2 @@\n x\n-y\n+z\n"
    assert hunks(diff) == (
        Hunk(first=1, last=1, text="b\nc"),
        Hunk(first=9, last=10, text="x\nz"),
    )


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert place("./a/../b.yaml") == "a/../b.yaml"
    assert place(str(tmp_path / "a" / "b.yaml")) == "a/b.yaml"
    assert place("/elsewhere/b.yaml") == "/elsewhere/b.yaml"


def test_a_file_elsewhere_is_a_uri_of_its_own(estimate: Estimate) -> None:
    (artifact,) = sarif_of(estimate, path="/elsewhere/b c.yaml")["artifacts"]
    assert artifact["location"] == {"uri": "file:///elsewhere/b%20c.yaml"}


@pytest.mark.parametrize(
    ("fmt", "said"),
    [
        ("junit", "no JUnit XML of Estimate"),
        ("github", "no GitHub annotations of Estimate"),
        ("sarif", "no SARIF of Estimate"),
    ],
)
def test_other_values_are_refused(fmt: str, said: str, estimate: Estimate) -> None:
    with pytest.raises(UsageError, match=f"{said}; use --format json"):
        RENDERERS[fmt](estimate, Page())


def test_no_page_of_a_check(estimate: Estimate) -> None:
    with pytest.raises(UsageError, match="no HTML page of Checked"):
        RENDERERS["html"](Checked(verdicts=(verdict_of(estimate),)), Page())
