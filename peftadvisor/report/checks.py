"""What the reports of a check share: what is said, in which order, and in which words."""

from __future__ import annotations

from pathlib import Path

from peftadvisor.integrations.checked import MEMORY_RULE, Fix, Problem, Verdict
from peftadvisor.profiles import Estimate
from peftadvisor.report.canvas import plain
from peftadvisor.report.sections import cost_words, percent, time_words
from peftadvisor.units import format_bytes, format_gib, format_seconds

UNKNOWN_RULE = "unknown-key"
LEVELS = ("error", "warning", "note")
_SHOWN_KEYS = 20


def remarks(verdict: Verdict) -> tuple[Problem, ...]:
    """Everything said of a config, worst first: its problems, memory and unknown keys included."""
    found = list(verdict.problems)
    said = {problem.rule for problem in found}
    if verdict.estimate.verdict != "fits" and MEMORY_RULE not in said:
        found.insert(
            0, Problem(rule=MEMORY_RULE, level="error", message=memory_words(verdict.estimate))
        )
    if verdict.config.unknown and UNKNOWN_RULE not in said:
        found.append(
            Problem(
                rule=UNKNOWN_RULE, level="warning", message=unknown_words(verdict.config.unknown)
            )
        )
    return tuple(sorted(found, key=lambda problem: LEVELS.index(problem.level)))


def headline(verdict: Verdict) -> str:
    """Whether the config passes, in a clause."""
    answer = {"fits": "fits", "tight": "tight", "oom": "does not fit"}[verdict.estimate.verdict]
    missed = dict.fromkeys(problem.rule for problem in verdict.at("error"))
    missed.pop(MEMORY_RULE, None)
    if not missed:
        return answer
    return f"{answer}{', but' if answer == 'fits' else ', and'} fails {', '.join(missed)}"


def memory_words(estimate: Estimate) -> str:
    """Predicted memory with its interval, the card, and the risk."""
    memory, run = estimate.memory, estimate.run
    cards = f"{run.gpus} × " if run.gpus > 1 else ""
    each = " each" if run.gpus > 1 else ""
    return (
        f"predicted {format_gib(memory.device_peak_bytes)} GiB{each} (90 % interval "
        f"{format_gib(memory.low_bytes)}–{format_gib(memory.high_bytes)} GiB) of "
        f"{format_gib(run.gpu.usable_bytes)} GiB on {cards}{run.gpu.name} ({run.gpu.id}), "
        f"OOM risk {percent(estimate.oom_probability)}"
    )


def outlook(estimate: Estimate) -> tuple[tuple[str, str], ...]:
    """Memory, time and money, each as a label and words."""
    return (
        ("Memory", memory_words(estimate)),
        ("Time", time_words(estimate.time, estimate.provenance.calibration)),
        ("Cost", cost_words(estimate.cost)),
    )


def unknown_words(keys: tuple[str, ...]) -> str:
    """Which keys nobody here knows; the first of them where they are many."""
    more = len(keys) - _SHOWN_KEYS
    listed = ", ".join(keys[:_SHOWN_KEYS]) + (f" and {more} more" if more > 0 else "")
    return f"not known here, and may matter: {listed}"


def fix_words(fix: Fix, tool: str) -> str:
    """The change, and what the run then takes."""
    change = ", ".join(f"{name} = {value}" for name, value in fix.change.items())
    then = fix.estimate
    return (
        f"{fix.words or f'{change} ({tool} has no key for it)'}: then "
        f"{format_bytes(then.memory.device_peak_bytes)}, OOM risk "
        f"{percent(then.oom_probability)}, {format_seconds(then.time.step_s)} per step"
    )


def whence(problem: Problem) -> str:
    """Key and line of a problem; empty where it is of the config as a whole."""
    line = None if problem.line is None else f"line {problem.line}"
    return ", ".join(part for part in (problem.key, line) if part)


def place(path: str) -> str:
    """A path as repositories write it: from the working directory, with forward slashes."""
    found = Path(path)
    if found.is_absolute() and found.is_relative_to(Path.cwd()):
        found = found.relative_to(Path.cwd())
    return found.as_posix()


def clean(text: str) -> str:
    """Text from outside, printable, but of as many lines as it has."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(plain(line.expandtabs(4)) for line in lines)
