"""A check as SARIF 2.1.0, which code scanning and editors read.

Section numbers are those of the OASIS standard.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from peftadvisor.integrations.checked import MEMORY_RULE, Checked, Fix, Problem, Verdict
from peftadvisor.report.checks import UNKNOWN_RULE, clean, fix_words, outlook, place, remarks
from peftadvisor.report.diffs import Hunk, hunks

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_RULES = {
    MEMORY_RULE: "The run would run out of GPU memory, or is more likely to than was accepted.",
    UNKNOWN_RULE: "The config holds keys whose effect on memory and time is not known.",
    "max-hours": "The job would last longer than was allowed.",
    "max-usd": "The job would cost more than was allowed.",
}
_ROOT = "%SRCROOT%"


def render(checked: Checked) -> str:
    """One run of the tool over all configs."""
    said = [(verdict, one) for verdict in checked.verdicts for one in remarks(verdict)]
    rules = list(dict.fromkeys(problem.rule for _, problem in said))
    driver = {
        "name": "peftadvisor",
        "version": version("peftadvisor"),
        "rules": [_rule(rule, [one for _, one in said if one.rule == rule]) for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "artifacts": [_artifact(verdict) for verdict in checked.verdicts],
        "results": [_result(verdict, one, rules.index(one.rule)) for verdict, one in said],
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _rule(rule: str, said: list[Problem]) -> dict[str, Any]:
    """What the rule is about, and who stands for it."""
    title = f"{rule.replace('-', ' ').capitalize()}."
    about = _RULES.get(rule, title)
    sources = dict.fromkeys(problem.source for problem in said if problem.source)
    return {
        "id": clean(rule),
        "shortDescription": _message(title),
        "fullDescription": _message(about),
        "help": _message("\n".join([about, *(f"Source: {source}" for source in sources)])),
    }


def _artifact(verdict: Verdict) -> dict[str, Any]:
    """The config, and what was predicted of its run."""
    estimate = verdict.estimate
    words = "\n".join(f"{label}: {words}" for label, words in outlook(estimate))
    return {
        "location": _location(verdict),
        "description": _message(words),
        "properties": {"verdict": estimate.verdict, "exit_code": verdict.exit_code},
    }


def _result(verdict: Verdict, problem: Problem, index: int) -> dict[str, Any]:
    """One remark. What is of the config as a whole stands at its first line, for GitHub's sake."""
    region = {"startLine": problem.line or 1}
    physical = {"artifactLocation": _location(verdict), "region": region}
    where: dict[str, Any] = {"physicalLocation": physical}
    if problem.key is not None:
        where["logicalLocations"] = [{"fullyQualifiedName": clean(problem.key)}]
    result = {
        "ruleId": clean(problem.rule),
        "ruleIndex": index,
        "level": problem.level,
        "message": _message(problem.message),
        "locations": [where],
    }
    if verdict.fix is not None and problem.rule == MEMORY_RULE and problem.level == "error":
        result["fixes"] = _fixes(verdict, verdict.fix)
    return {name: value for name, value in result.items() if value != []}


def _fixes(verdict: Verdict, fix: Fix) -> list[dict[str, Any]]:
    """The change as replacements of whole lines; none where the tool has no key for it."""
    found = hunks(fix.diff)
    if not found:
        return []
    changes = [
        {
            "artifactLocation": _location(verdict),
            "replacements": [_replacement(hunk) for hunk in found],
        }
    ]
    words = _message(fix_words(fix, verdict.config.tool))
    return [{"description": words, "artifactChanges": changes}]


def _replacement(hunk: Hunk) -> dict[str, Any]:
    return {
        "deletedRegion": {"startLine": hunk.first, "startColumn": 1, "endLine": hunk.last},
        "insertedContent": {"text": hunk.text},
    }


def _location(verdict: Verdict) -> dict[str, str]:
    """The file from the root of the sources, or by itself where it is elsewhere (§3.4.3)."""
    path = place(verdict.path)
    uri = quote(path.encode("utf-8", "surrogateescape"))
    if PurePosixPath(path).is_absolute():
        return {"uri": f"file://{uri}"}
    return {"uri": uri, "uriBaseId": _ROOT}


def _message(text: str) -> dict[str, str]:
    """Text without placeholders (§3.11.5) and without links (§3.11.6)."""
    escaped = clean(text).replace("{", "{{").replace("}", "}}")
    return {"text": escaped.replace("](", "] (")}
