"""Verdicts made by hand, for the tests of what is reported of them."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from peftadvisor.integrations.checked import Fix, Problem, Verdict
from peftadvisor.integrations.configs.value import ReadConfig, Traced
from peftadvisor.profiles import Estimate
from peftadvisor.specs import Job

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted' & <b attr='1'>",
    "two\nlines\r\nand more",
    "100%0A::error::injected",
    "::error file=other.yaml::injected",
    "a:b,c=d%2Ce%",
    "]]> --> <![CDATA[",
    "ctrl \x00\x07\x1b[31m\x7f\x85\u2028 end",
    "non-character \ufffe\uffff end",
    "right \u202eto left\u202c \u05e9\u05dc\u05d5\u05dd",
    "[link](http://example.com) {0} {{1}}",
    "x" * 300,
    "configs/" + "deep/" * 60 + "run.yaml",
    "",
)

TEXT = "base_model: acme/seq2seq-11b\nlr: 2e-4\nmicro_batch_size: 8\nnum_epochs: 3\n"
SMALLER = TEXT.replace("micro_batch_size: 8", "micro_batch_size: 2")


def diff_of(path: str, old: str, new: str) -> str:
    lines = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, fromfile=path, tofile=path))


def config_of(estimate: Estimate, **changes: Any) -> ReadConfig:
    run = estimate.run
    values: dict[str, Any] = {
        "tool": "axolotl",
        "version": "0.19",
        "model": run.model.id,
        "method": run.method,
        "training": run.training,
        "job": Job(),
        "learning_rate": 2e-4,
        "gpus": run.gpus,
        "sharding": run.sharding,
        "traced": (
            Traced(
                name="micro_batch_size",
                value=8,
                key="micro_batch_size",
                source="micro_batch_size: 8",
            ),
            Traced(name="optimizer", value="adamw", key=None, source="default of axolotl 0.19"),
            Traced(name="gpus", value=None, key=None, source="the launcher says how many"),
        ),
        "unknown": ("frobnicate",),
        "notes": ("evaluation is left out",),
    }
    return ReadConfig(**{**values, **changes})


PROBLEMS = (
    Problem(
        rule="max-hours",
        level="error",
        message="the job lasts 11.2 h, more than 8 h",
        key="num_epochs",
        line=4,
    ),
    Problem(
        rule="rate-outside-tested",
        level="warning",
        message="2e-4 is above every rate that was tested",
        source="two studies",
        key="lr",
        line=2,
    ),
    Problem(rule="alpha-and-rate", level="note", message="alpha and the rate are one knob"),
)


def fix_of(estimate: Estimate, path: str = "configs/run.yaml") -> Fix:
    return Fix(
        change={"micro_batch_size": 2},
        words="micro_batch_size from 8 to 2",
        diff=diff_of(path, TEXT, SMALLER),
        text=SMALLER,
        estimate=estimate,
    )


def verdict_of(estimate: Estimate, **changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "path": "configs/run.yaml",
        "config": config_of(estimate),
        "estimate": estimate,
        "problems": (),
        "fix": None,
    }
    return Verdict(**{**values, **changes})


def tight(estimate: Estimate) -> Estimate:
    return replace(estimate, verdict="tight", oom_probability=0.07)


def hostile_verdict(estimate: Estimate, text: str) -> Verdict:
    """The same text wherever something from outside may stand."""
    said: dict[str, Any] = {"message": text, "source": text, "key": text, "line": 3}
    problems = (
        Problem(rule="out-of-memory", level="error", **said),
        Problem(rule="lint", level="error", **said),
        Problem(rule="other", level="note", **said),
    )
    traced = (Traced(name=text, value=text, key=text, source=text),)
    config = config_of(
        estimate, tool=text, version=text, traced=traced, unknown=(text,), notes=(text,)
    )
    fix = replace(fix_of(estimate, text), words=text)
    return verdict_of(estimate, path=text, config=config, problems=problems, fix=fix)
