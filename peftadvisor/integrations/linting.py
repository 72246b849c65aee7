"""What is odd about a config, beside the memory: one small predicate per named rule.

What each rule says, and by which source, stands in ``config_rules.csv`` under the same id; rules
on any run, wherever it was written down, are those of ``advisor.conflicts``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from peftadvisor.advisor.conflicts import conflicts
from peftadvisor.advisor.space import computes_bf16
from peftadvisor.data.models import max_positions
from peftadvisor.data.run_rules import load_config_rules
from peftadvisor.integrations.checked import Level, Problem
from peftadvisor.integrations.configs.value import ReadConfig
from peftadvisor.methods import find_method
from peftadvisor.profiles import Estimate

_LEVELS: Mapping[str, Level] = {"warns": "warning", "conflict": "note"}
_SAVED_BYTES = 6  # per trained parameter: two states in 1 byte for 4
_TINY = 0.01
_LEFT_TO_USERS = ("trainer", "runspec")
"""Tools that do not themselves have the inputs of a frozen model require gradients."""
KEYS: Mapping[str, str] = {
    "alpha-alone": "alpha",
    "rank-alone": "rank",
    "reentrant-frozen": "gradient_checkpointing",
    "tiny-8bit": "optimizer",
    "packed-mask": "padded",
    "gpus-batch": "micro_batch_size",
    "pure-fp16": "dtype",
    "bf16-unsupported": "dtype",
    "length-positions": "seq_len",
    "rate-unsourced": "learning_rate",
    "rate-outside-tested": "learning_rate",
    "rate-failed": "learning_rate",
    "rate-as-full": "learning_rate",
    "full-rate-forgets": "learning_rate",
    "qlora-rate-large": "learning_rate",
    "alpha-without-rate": "alpha",
    "alpha-below-rank": "alpha",
    "rslora-step": "learning_rate",
    "targets-attention": "target_modules",
    "targets-loftq": "target_modules",
    "fp16-nf4": "dtype",
    "dora-dropout": "dropout",
    "dropout-high": "dropout",
    "rank-few-data": "rank",
    "rank-code": "rank",
    "capacity-short": "rank",
    "experts": "target_modules",
    "prompt-positions": "virtual_tokens",
    "prompt-long": "virtual_tokens",
    "prompt-small-model": "virtual_tokens",
    "few-steps": "steps",
    "many-epochs": "epochs",
    "batch-large": "gradient_accumulation_steps",
    "adalora-steps": "total_steps",
}
"""The value of the run that a rule speaks of, by the name that it is traced under."""


@dataclass(frozen=True, slots=True)
class _Linted:
    """A config and what it was predicted to take."""

    config: ReadConfig
    estimate: Estimate

    def given(self, name: str) -> bool:
        """Whether the file itself gives a value."""
        return any(traced.name == name and traced.key for traced in self.config.traced)

    def has(self, name: str) -> bool:
        """Whether the method has a hyperparameter of this name."""
        return name in find_method(self.config.method.name).defaults


def lint(config: ReadConfig, estimate: Estimate) -> Iterator[Problem]:
    """Every rule that fires, those on configs first."""
    linted = _Linted(config, estimate)
    for rule in load_config_rules().values():
        if PREDICATES[rule.id](linted):
            yield _problem(config, rule.id, _LEVELS[rule.kind], rule.statement, rule.source)
    run = estimate.run
    everywhere = dataclasses.replace(
        run.training,
        gradient_accumulation_steps=run.training.gradient_accumulation_steps * run.gpus,
    )
    for found in conflicts(
        find_method(run.method.name),
        dict(run.method.settings),
        learning_rate=config.learning_rate,
        job=config.job,
        model=run.model,
        training=everywhere,
    ):
        level = _LEVELS.get(found.kind)
        if level is not None:
            yield _problem(config, found.rule, level, found.statement, found.source)


def key_of(config: ReadConfig, name: str) -> str | None:
    """The key of the file that gave a value of the run."""
    return next((traced.key for traced in config.traced if traced.name == name), None)


def _problem(config: ReadConfig, rule: str, level: Level, message: str, source: str) -> Problem:
    key = key_of(config, KEYS[rule])
    return Problem(rule=rule, level=level, message=message, source=source, key=key)


def _alpha_alone(linted: _Linted) -> bool:
    return linted.given("alpha") and linted.has("rank") and not linted.given("rank")


def _rank_alone(linted: _Linted) -> bool:
    """Alpha is not given, and the tool's default does not follow the rank."""
    method = find_method(linted.config.method.name)
    settings = method.settings(linted.config.method)
    rank, alpha = settings.get("rank"), settings.get("alpha")
    alone = linted.given("rank") and alpha is not None and not linted.given("alpha")
    return alone and rank != method.defaults["rank"] and alpha not in (rank, 2 * (rank or 0))


def _reentrant_frozen(linted: _Linted) -> bool:
    t = linted.config.training
    reentrant = t.gradient_checkpointing == "reentrant" and linted.config.tool in _LEFT_TO_USERS
    return reentrant and find_method(linted.config.method.name).family != "full"


def _tiny_8bit(linted: _Linted) -> bool:
    found = linted.estimate
    saved = _SAVED_BYTES * found.parameters.trainable
    eight_bits = found.run.training.optimizer.endswith("8bit")
    return eight_bits and saved < _TINY * found.memory.device_peak_bytes


def _packed_mask(linted: _Linted) -> bool:
    """Packing is asked for by a key of the file, and documents are not kept apart by lengths."""
    by = next((t for t in linted.config.traced if t.name == "padded"), None)
    asked = by is not None and by.key is not None and "pack" in by.key and ": true" in by.source
    return asked and linted.config.training.attention != "flash_attention_2"


def _gpus_batch(linted: _Linted) -> bool:
    return linted.estimate.run.gpus > 1 and linted.config.gpus is None


def _pure_fp16(linted: _Linted) -> bool:
    t = linted.config.training
    return t.dtype == "fp16" and not t.amp and t.quantization == "none"


def _bf16_unsupported(linted: _Linted) -> bool:
    return linted.config.training.dtype == "bf16" and not computes_bf16(linted.estimate.run.gpu)


def _length_positions(linted: _Linted) -> bool:
    limit = max_positions(linted.estimate.run.model)
    return limit is not None and linted.config.training.seq_len > limit


PREDICATES: Mapping[str, Callable[[_Linted], bool]] = {
    "alpha-alone": _alpha_alone,
    "rank-alone": _rank_alone,
    "reentrant-frozen": _reentrant_frozen,
    "tiny-8bit": _tiny_8bit,
    "packed-mask": _packed_mask,
    "gpus-batch": _gpus_batch,
    "pure-fp16": _pure_fp16,
    "bf16-unsupported": _bf16_unsupported,
    "length-positions": _length_positions,
}
