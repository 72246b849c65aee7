"""The comment that heads every export: what was predicted, how to check it, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from peftadvisor.integrations.exports.commands import estimate_command
from peftadvisor.integrations.exports.schedule import applied
from peftadvisor.integrations.exports.value import Difference, Export, as_run
from peftadvisor.methods import find_method
from peftadvisor.units import format_bytes, format_seconds

LEAST_RISK = 1e-4
"""Below which a probability is not told apart from others."""


def header(
    export: Export, tool: str, start: Sequence[str], differences: Sequence[Difference]
) -> str:
    """Comment lines, each begun by ``#``; ``tool`` names versions, ``start`` says how to run it."""
    lines = [
        *_title(export, tool),
        *_prediction(export),
        *_differences(export, differences),
        *_advice(export),
        "Run it:",
        *(f"  {line}" for line in start),
    ]
    return "".join(f"# {comment(line)}".rstrip() + "\n" for line in lines)


def comment(text: str) -> str:
    """Text from outside as one line of a comment: nothing in it can end the line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _title(export: Export, tool: str) -> Iterator[str]:
    title = find_method(export.run.method.name).title
    yield f"{title}: {export.run.model.id}"
    yield f"Written by peftadvisor {version('peftadvisor')} on {export.made}, for {tool}."


def _prediction(export: Export) -> Iterator[str]:
    found, run = export.estimate, export.run
    memory, time = found.memory, found.time
    low, high = format_bytes(memory.low_bytes), format_bytes(memory.high_bytes)
    cards = f"{run.gpus} x {run.gpu.name}, {run.sharding}" if run.gpus > 1 else run.gpu.name
    versions = found.provenance.versions
    basis = [", ".join(f"{name} {is_}" for name, is_ in versions.items())]
    basis.append(found.provenance.calibration)
    yield "Predicted:"
    yield f"  memory   {format_bytes(memory.device_peak_bytes)} ({low} to {high} with 90 %) of " + (
        f"{format_bytes(run.gpu.usable_bytes)} on {cards}"
    )
    yield f"  risk     {_percent(found.oom_probability)} to run out of memory: {found.verdict}"
    yield f"  time     {format_seconds(time.step_s)} per step ({format_seconds(time.low_s)} to " + (
        f"{format_seconds(time.high_s)} with 90 %), {time.tokens_per_s:,.0f} tokens/s"
    )
    yield f"  with     {'; '.join(filter(None, basis))}"
    yield f"  check    {estimate_command(run)}"
    if run.training.max_grad_norm == 0:
        yield "           (the command clips gradients, which this run does not)"


def _differences(export: Export, differences: Sequence[Difference]) -> Iterator[str]:
    if not differences:
        return
    yield "Differs from the estimate:"
    for difference in differences:
        yield f"  - {difference.text}"
    there = as_run(export.run, differences)
    if there != export.run:
        yield f"  as it will run: {estimate_command(there)}"


def _advice(export: Export) -> Iterator[str]:
    told = applied(export)
    if told:
        yield "Hyperparameters, and who says so:"
    for advice in told:
        value = advice.value
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        source = f" ({advice.source})" if advice.source else ""
        yield f"  {advice.name} {shown}: {advice.rule}{source}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= LEAST_RISK else f"under {100 * LEAST_RISK:g} %"
