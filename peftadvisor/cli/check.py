"""``peftadvisor check``: a tool's config, before it is launched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftadvisor.cli import completing, numbers, options
from peftadvisor.cli.output import check_writable, emit, note, progress
from peftadvisor.errors import UsageError
from peftadvisor.specs import Budget, Job

if TYPE_CHECKING:
    from peftadvisor.integrations.checked import Verdict
    from peftadvisor.integrations.checking import Terms


@click.command("check")
@click.argument(
    "configs", metavar="CONFIG...", nargs=-1, required=True, shell_complete=completing.files
)
@options.on_gpu
@click.option("--gpus", **numbers.COUNT, help="How many.  [default: as the config says, else 1]")
@options.risk
@options.limits
@options.size
@click.option(
    "--baseline",
    metavar="FILE",
    help="Fail where memory or step time is worse than in this earlier --format json.",
)
@click.option(
    "--fix", metavar="PATH", help="Write the config with the smallest change that fits there."
)
@click.option(
    "--watch-free",
    is_flag=True,
    help="Wait until the card of this machine has the memory free that the run needs.",
)
@click.option("--watch-s", **numbers.COUNT, default="3600", show_default=True, help="How long.")
@options.check_output
def command(fmt: str, out: str | None, configs: tuple[str, ...], **values: Any) -> int:
    """Will the run that a training config describes fit, and is anything odd about it?

    Reads configs of axolotl, LLaMA-Factory, TRL, torchtune, transformers' TrainingArguments beside
    PEFT's adapter_config.json, and our own JSON; which it is shows in the file.

    Exit codes: 0 fits; 2 bad input; 3 would not fit, or exceeds a limit or the baseline; 4 fits
    only above the accepted risk. Of several configs, the worst.
    """
    from peftadvisor.integrations.checked import Checked

    check_writable(out)
    check_writable(values["fix"], "--fix")
    if len(configs) > 1 and (values["fix"] or values["watch_free"]):
        raise UsageError("--fix and --watch-free are for one config; name one")
    limits = tuple(f"max-{name}" for name in ("hours", "usd") if values[f"max_{name}"] is not None)
    checked = Checked(verdicts=tuple(_verdicts(configs, values)), limits=limits)
    if values["fix"]:
        _write_fix(checked.verdicts[0], values["fix"])
    emit(checked, fmt, out)
    if values["watch_free"] and checked.exit_code == 0:
        return _wait(checked.verdicts[0], values["watch_s"])
    return checked.exit_code


def _verdicts(configs: tuple[str, ...], values: Mapping[str, Any]) -> Iterator[Verdict]:
    from peftadvisor.integrations.checking import check
    from peftadvisor.integrations.gates import read_baseline

    baseline = None if values["baseline"] is None else read_baseline(values["baseline"])
    for path in configs:
        terms = _terms(values, path, baseline)
        with progress(f"Checking {path}") as say:
            yield check(path, terms, say)


def _terms(values: Mapping[str, Any], path: str, baseline: Mapping[str, Any] | None) -> Terms:
    from peftadvisor.integrations.checking import Terms
    from peftadvisor.integrations.gates import Gates
    from peftadvisor.integrations.lookup import gpu_spec

    earlier = None if baseline is None else baseline.get(path)
    if baseline is not None and earlier is None:
        note(f"{values['baseline']} says nothing of {path}")
    return Terms(
        gpu=gpu_spec(values["gpu"], values["gpu_memory"]),
        gpus=values["gpus"],
        budget=Budget(total_tokens=values["tokens"], max_oom_risk=values["max_risk"]),
        gates=Gates(max_hours=values["max_hours"], max_usd=values["max_usd"], earlier=earlier),
        job=Job(examples=values["examples"]),
    )


def _write_fix(verdict: Verdict, path: str) -> None:
    """The changed config as a new file; why there is none goes to stderr."""
    if verdict.estimate.verdict == "fits":
        note("it fits as it is, so there is nothing to change")
    elif verdict.fix is None:
        note("no change of batch, checkpointing, loss, optimizer, base or length makes it fit")
    elif not verdict.fix.text:
        note(f"this would make it fit, but the file cannot be told: {verdict.fix.words}")
    else:
        if Path(path).exists() and Path(path).samefile(verdict.path):
            raise UsageError(f"--fix {path} is the config itself; name a new file")
        Path(path).write_text(verdict.fix.text, encoding="utf-8")
        note(f"{path}: {verdict.fix.words}")


def _wait(verdict: Verdict, most_s: int) -> int:
    """0 once enough memory is free, 3 where that takes too long."""
    from peftadvisor.cuda.waiting import wait_for_free
    from peftadvisor.units import format_bytes

    needed = verdict.estimate.memory.high_bytes
    with progress(f"Waiting for {format_bytes(needed)} to be free") as say:
        free = wait_for_free(needed, most_s, say)
    enough = free >= needed
    state = "is" if enough else f"after {most_s} s only is"
    note(f"{format_bytes(free)} {state} free, {format_bytes(needed)} needed")
    return 0 if enough else 3
