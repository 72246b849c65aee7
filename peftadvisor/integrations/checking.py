"""Pre-flight: a tool's config, checked for one GPU before anything is started."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.advisor.estimating import estimate
from peftadvisor.advisor.lessening import smallest_change
from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.checked import Fix, Problem, Verdict
from peftadvisor.integrations.configs.editing import edited, lines
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of
from peftadvisor.integrations.configs.stored import as_stored
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.integrations.gates import Gates, missed
from peftadvisor.integrations.linting import key_of, lint
from peftadvisor.integrations.lookup import model_spec
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.obtain import Progress
from peftadvisor.specs import Budget, GpuSpec, Job, ModelSpec, RunSpec
from peftadvisor.units import format_bytes

_WORDS: Mapping[str, str] = {
    "micro_batch_size": "micro-batch {}",
    "gradient_accumulation_steps": "accumulation {}",
    "gradient_checkpointing": "{} checkpointing",
    "loss": "{} loss",
    "optimizer": "optimizer {}",
    "quantization": "base in {}",
    "seq_len": "samples of {} tokens",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a config is checked against.

    ``gpus`` overrides what the config says; ``budget`` has the accepted risk. ``job`` tells what
    the config does not, such as how many examples there are: where both speak, it holds.
    """

    gpu: GpuSpec
    gpus: int | None = None
    budget: Budget = Budget()
    gates: Gates = dataclasses.field(default_factory=Gates)
    job: Job = Job()
    fixing: bool = True


def check(path: str | Path, terms: Terms, progress: Progress | None = None) -> Verdict:
    """What the config's run will take on that GPU, what is odd about it, and what would help.

    Raises:
        UsageError: the file is no config that is known here, or its run cannot exist or be
            predicted with what is installed; the message names the file.
    """
    file = read_config_file(path)
    tool = tool_of(file)
    try:
        config = _with_job(tool.read(file), terms.job)
        model = model_spec(config.model)
        config = as_stored(config, model)
        run = _run(config, model, terms)
        found = estimate(run, budget=terms.budget, job=config.job, progress=progress)
        problems = (
            *_memory_problem(config, found, terms.budget),
            *missed(terms.gates, found),
            *_unknown(config),
            *lint(config, found),
        )
    except UsageError as error:
        raise _of_file(error, file) from None
    needs_fix = terms.fixing and found.verdict != "fits"
    return Verdict(
        path=str(path),
        config=config,
        estimate=found,
        problems=_at_lines(file, problems),
        fix=_fix(tool, file, config, found, terms.budget, progress) if needs_fix else None,
    )


def _of_file(error: UsageError, file: ConfigFile) -> UsageError:
    """The complaint with the file's name in front, unless it is there."""
    shown = one_line(file.path)
    text = str(error)
    return type(error)(text) if shown in text else UsageError(f"{shown}: {text}")


def _with_job(config: ReadConfig, told: Job) -> ReadConfig:
    """The config with what the user says of the job, where it says nothing itself."""
    own = config.job
    names = [field.name for field in dataclasses.fields(Job)]
    merged = {n: getattr(told, n) if getattr(own, n) is None else getattr(own, n) for n in names}
    if own.steps is not None:
        merged["epochs"] = None
    return dataclasses.replace(config, job=Job(**merged))


def _run(config: ReadConfig, model: ModelSpec, terms: Terms) -> RunSpec:
    return RunSpec(
        model=model,
        method=config.method,
        training=config.training,
        gpu=terms.gpu,
        gpus=terms.gpus or config.gpus or 1,
        sharding=config.sharding,
    )


def _memory_problem(config: ReadConfig, found: Estimate, budget: Budget) -> Iterator[Problem]:
    if found.verdict == "fits":
        return
    memory, gpu = found.memory, found.run.gpu
    low, high = format_bytes(memory.low_bytes), format_bytes(memory.high_bytes)
    yield Problem(
        rule="out-of-memory",
        level="error",
        message=(
            f"needs {format_bytes(memory.device_peak_bytes)} ({low} to {high}) of "
            f"{format_bytes(gpu.usable_bytes)} on {gpu.name}: {100 * found.oom_probability:.3g} % "
            f"risk to run out of memory, {100 * budget.max_oom_risk:g} % accepted"
        ),
        source="predicted",
        key=key_of(config, "micro_batch_size"),
    )


def _unknown(config: ReadConfig) -> Iterator[Problem]:
    for key in config.unknown:
        yield Problem(
            rule="unknown-key",
            level="warning",
            message=f"the key '{one_line(key)}' is not known here and left out of the prediction",
            source=f"{config.tool} {config.version}",
            key=key,
        )


def _at_lines(file: ConfigFile, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    found = lines(file) if any(problem.key for problem in problems) else {}
    return tuple(dataclasses.replace(p, line=found.get(p.key or "")) for p in problems)


def _fix(
    tool: Tool,
    file: ConfigFile,
    config: ReadConfig,
    found: Estimate,
    budget: Budget,
    progress: Progress | None,
) -> Fix | None:
    def offered(change: Mapping[str, Any]) -> bool:
        return not change or tool.edits(file, config, change) is not None

    lessened = smallest_change(found, budget, offered, progress)
    if lessened is None:
        return None
    edits = tool.edits(file, config, lessened.changes) or ()
    text = edited(file, edits) or ""
    return Fix(
        change=lessened.changes,
        words=", ".join(_WORDS[name].format(value) for name, value in lessened.changes.items()),
        diff=_diff(file, text) if text else "",
        text=text,
        estimate=lessened.estimate,
    )


def _diff(file: ConfigFile, text: str) -> str:
    name = one_line(file.path)
    before, after = file.text.splitlines(), text.splitlines()
    diff = difflib.unified_diff(before, after, name, name, lineterm="", n=1)
    return "\n".join(diff)
