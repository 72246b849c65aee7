"""A check as commands to GitHub's workflow runner, which it turns into annotations of files."""

from __future__ import annotations

from collections.abc import Iterator

from peftadvisor.integrations.checked import MEMORY_RULE, Checked, Level, Problem, Verdict
from peftadvisor.report.checks import (
    LEVELS,
    clean,
    fix_words,
    headline,
    memory_words,
    outlook,
    place,
    remarks,
)

_COMMANDS: dict[Level, str] = {"error": "error", "warning": "warning", "note": "notice"}
_IN_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTIES = _IN_DATA | str.maketrans({":": "%3A", ",": "%2C"})


def render(checked: Checked) -> str:
    """A line per remark, worst first, and one with the numbers of each config.

    The runner shows ten errors and ten warnings of a step, so all errors come before all else.
    """
    said = [line for verdict in checked.verdicts for line in _lines(verdict)]
    said.sort(key=lambda one: LEVELS.index(one[0]))
    return "".join(f"{line}\n" for _, line in said)


def _lines(verdict: Verdict) -> Iterator[tuple[Level, str]]:
    """Each with its level, by which they are put in order."""
    for problem in remarks(verdict):
        yield problem.level, _command(verdict, problem, _message(verdict, problem))
    summary = Problem(rule=headline(verdict), level="note", message="")
    numbers = "\n".join(words for _, words in outlook(verdict.estimate))
    yield summary.level, _command(verdict, summary, numbers)


def _message(verdict: Verdict, problem: Problem) -> str:
    """What is said, by whom, and for memory what would help."""
    lines = [problem.message]
    if problem.source:
        lines.append(f"Source: {problem.source}")
    if problem.rule == MEMORY_RULE and problem.level == "error":
        fix, numbers = verdict.fix, memory_words(verdict.estimate)
        lines.extend([] if numbers == problem.message else [numbers])
        if fix is not None:
            lines.append(f"Smallest change that fits: {fix_words(fix, verdict.config.tool)}")
            lines.append(fix.diff)
    return "\n".join(lines).rstrip("\n")


def _command(verdict: Verdict, problem: Problem, message: str) -> str:
    properties = {
        "file": place(verdict.path),
        "line": "" if problem.line is None else str(problem.line),
        "title": f"peftadvisor: {problem.rule}",
    }
    given = ",".join(
        f"{name}={clean(value).translate(_IN_PROPERTIES)}"
        for name, value in properties.items()
        if value
    )
    return f"::{_COMMANDS[problem.level]} {given}::{clean(message).translate(_IN_DATA)}"
