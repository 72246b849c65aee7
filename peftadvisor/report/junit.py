"""A check as JUnit XML: a suite per config, a case per question that was asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from peftadvisor.integrations.checked import MEMORY_RULE, Checked, Problem, Verdict
from peftadvisor.report.checks import clean, fix_words, outlook, place, remarks, whence


def render(checked: Checked) -> str:
    """One document; a case fails by errors, and tells warnings and notes in its output."""
    suites = [_suite(verdict, checked.limits) for verdict in checked.verdicts]
    counts = {
        name: str(sum(int(suite.attrib[name]) for suite in suites))
        for name in ("tests", "failures", "errors")
    }
    root = Element("testsuites", {"name": "peftadvisor check", **counts})
    root.extend(suites)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _suite(verdict: Verdict, limits: Sequence[str]) -> Element:
    said = remarks(verdict)
    rules = dict.fromkeys([MEMORY_RULE, *limits, *(problem.rule for problem in said)])
    name = clean(place(verdict.path))
    cases = [
        _case(verdict, rule, name, [one for one in said if one.rule == rule]) for rule in rules
    ]
    failed = sum(case.find("failure") is not None for case in cases)
    counts = {"tests": len(cases), "failures": failed, "errors": 0, "skipped": 0}
    suite = Element("testsuite", {"name": name, **{key: str(n) for key, n in counts.items()}})
    suite.append(_properties(verdict))
    suite.extend(cases)
    return suite


def _properties(verdict: Verdict) -> Element:
    """The numbers of the prediction, in base units."""
    estimate = verdict.estimate
    memory, cost, run = estimate.memory, estimate.cost, estimate.run
    values = {
        "tool": f"{verdict.config.tool} {verdict.config.version}",
        "gpu": run.gpu.id,
        "gpus": run.gpus,
        "verdict": estimate.verdict,
        "exit_code": verdict.exit_code,
        "oom_probability": estimate.oom_probability,
        "device_peak_bytes": memory.device_peak_bytes,
        "low_bytes": memory.low_bytes,
        "high_bytes": memory.high_bytes,
        "usable_bytes": run.gpu.usable_bytes,
        "step_s": estimate.time.step_s,
        "hours_total": cost.hours_total,
        "usd_total": cost.usd_total,
    }
    properties = Element("properties")
    for name, value in values.items():
        if value is not None:
            SubElement(properties, "property", name=name, value=clean(str(value)))
    return properties


def _case(verdict: Verdict, rule: str, suite: str, said: Sequence[Problem]) -> Element:
    """One question: the errors are why it fails, all else is output."""
    case = Element("testcase", name=clean(rule), classname=suite)
    errors = [problem for problem in said if problem.level == "error"]
    if errors:
        failure = SubElement(case, "failure", type=clean(rule), message=_message(errors))
        failure.text = "\n".join(map(_words, errors))
    others = [f"{one.level}: {_words(one)}" for one in said if one.level != "error"]
    if rule == MEMORY_RULE:
        others.extend(_memory(verdict))
    if others:
        SubElement(case, "system-out").text = "\n".join(others)
    return case


def _message(errors: Sequence[Problem]) -> str:
    return "; ".join(clean(error.message) for error in errors)


def _words(problem: Problem) -> str:
    details = (whence(problem), f"Source: {problem.source}" if problem.source else "")
    return clean("\n  ".join((problem.message, *(detail for detail in details if detail))))


def _memory(verdict: Verdict) -> list[str]:
    """The numbers, and the change that helps."""
    lines = [clean(f"{label}: {words}") for label, words in outlook(verdict.estimate)]
    if verdict.fix is not None:
        lines.append(
            clean(f"Smallest change that fits: {fix_words(verdict.fix, verdict.config.tool)}")
        )
        lines.append(clean(verdict.fix.diff))
    return lines
