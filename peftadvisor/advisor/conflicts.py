"""Settings at odds with each other or with what is known: one small predicate per named rule.

What each rule says, and by which source, stands in ``run_rules.csv`` under the same id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from peftadvisor.advisor.advised import Finding
from peftadvisor.advisor.amounts import learned_tokens, parameters_per_rank, run_epochs, run_steps
from peftadvisor.advisor.learning_rates import failed_rate, learning_rates, rate_of, rates_tested
from peftadvisor.advisor.planned import PlannedRun
from peftadvisor.advisor.rules import case_of, find_rule
from peftadvisor.data.hyperparameters import GROUPS, load_rules
from peftadvisor.data.models import max_positions
from peftadvisor.data.run_rules import load_run_rules
from peftadvisor.methods import find_method
from peftadvisor.methods.base import Method
from peftadvisor.methods.linears import has_experts
from peftadvisor.specs import Job, ModelSpec, TrainingSpec

HIGH_RANK = 64
FAR = 2.0
"""How many times too large or small a step is before it is said."""

_ATTENTION_NAME = re.compile(
    r"(([qkvo]|out|qkv|query|key|value)_proj|[qkvo]|query|key|value|query_key_value|c_attn|wqkv"
    r"|(q|k|v|out)_lin)"
)


def conflicts(
    method: Method,
    settings: Mapping[str, Any],
    *,
    learning_rate: float | None,
    job: Job,
    model: ModelSpec,
    training: TrainingSpec | None,
) -> tuple[Finding, ...]:
    """Every rule that fires on a run, in the order of the table.

    ``settings`` are those that differ from the method's defaults; the batch is that of
    ``training`` (fold further GPUs into its accumulation). What is None is not judged.
    """
    batch = None
    if training is not None:
        batch = training.micro_batch_size * training.gradient_accumulation_steps
    steps = job.steps if batch is None else run_steps(job, batch)
    run = PlannedRun(
        method=method,
        settings={**method.defaults, **settings},
        learning_rate=learning_rate,
        job=job,
        model=model,
        training=training,
        batch=batch,
        case=case_of(model, job).with_steps(steps),
    )
    return tuple(
        Finding(
            rule=rule.id,
            kind=rule.kind,
            statement=rule.statement,
            source=rule.source,
            confidence=rule.confidence,
        )
        for rule in load_run_rules().values()
        if PREDICATES[rule.id](run)
    )


def _rate_unsourced(run: PlannedRun) -> bool:
    return run.advised_rate(alpha=None) is None


def _rate_outside_tested(run: PlannedRun) -> bool:
    """Neither as it is nor as it would be at the alpha of the rule."""
    tested = rates_tested(run.method.name, run.case)
    if run.learning_rate is None or tested is None:
        return False
    own, for_alpha = run.advised_rate(alpha=None), run.advised_rate(alpha=run.alpha)
    moved = run.learning_rate * (own / for_alpha if own and for_alpha else 1)
    return not any(tested[0] <= rate <= tested[1] for rate in (run.learning_rate, moved))


def _rate_failed(run: PlannedRun) -> bool:
    failed = failed_rate(run.method.name, run.case)
    if failed is None or run.learning_rate is None:
        return False
    return run.learning_rate <= failed


def _rate_as_full(run: PlannedRun) -> bool:
    """No more than full fine-tuning's rate, where the method's own is far above that."""
    if run.learning_rate is None or run.method.family == "full":
        return False
    full = rate_of(learning_rates(find_method("full"), run.model, run.case, rank=None, alpha=None))
    own = run.advised_rate(alpha=None)
    if full is None or own is None:
        return False
    return run.learning_rate <= full and own > FAR * full


def _full_rate_forgets(run: PlannedRun) -> bool:
    limit = load_rules()["rate-full"].high
    assert limit is not None
    return run.method.name == "full" and (run.learning_rate or 0) > limit


def _qlora_rate_large(run: PlannedRun) -> bool:
    """At least the rate of smaller models, moved to the alpha that it is for."""
    small, large = load_rules()["rate-qlora"], load_rules()["rate-qlora-large"]
    assert isinstance(small.value, float)
    assert small.at_alpha is not None
    assert large.min_parameters is not None
    rate = (run.learning_rate or 0) * (run.alpha or small.at_alpha) / small.at_alpha
    is_large = (run.model.parameters or 0) >= large.min_parameters
    return run.nf4 and run.lora_like and is_large and rate >= small.value


def _alpha_without_rate(run: PlannedRun) -> bool:
    """The rate is about the rule's own, though alpha calls for another."""
    own, wanted = run.advised_rate(alpha=None), run.advised_rate(alpha=run.alpha)
    if run.learning_rate is None or own is None or wanted is None or run.method.name == "rslora":
        return False
    return _near(run.learning_rate, own) and not _near(run.learning_rate, wanted)


def _alpha_below_rank(run: PlannedRun) -> bool:
    scaled = run.method.name in ("qlora", *GROUPS["lora-scaled"]) and run.method.name != "rslora"
    return (
        scaled and run.number("rank") >= HIGH_RANK and run.number("alpha") < 2 * run.number("rank")
    )


def _rslora_step(run: PlannedRun) -> bool:
    wanted = run.advised_rate(alpha=run.alpha)
    far = wanted is not None and (run.learning_rate or 0) > FAR * wanted
    return run.method.name == "rslora" and far


def _targets_attention(run: PlannedRun) -> bool:
    if run.method.name not in GROUPS["lora-anywhere"]:
        return False
    named = run.settings["target_modules"]
    if named is None or isinstance(named, str):
        return named is None
    return all(_ATTENTION_NAME.fullmatch(name.rpartition(".")[2]) for name in named)


def _targets_loftq(run: PlannedRun) -> bool:
    return run.method.name == "loftq" and run.settings["target_modules"] != "all-linear"


def _fp16_nf4(run: PlannedRun) -> bool:
    return run.nf4 and run.training is not None and run.training.dtype == "fp16"


def _dora_dropout(run: PlannedRun) -> bool:
    return run.method.name == "dora" and run.number("dropout") > 0


def _dropout_high(run: PlannedRun) -> bool:
    limit = load_rules()["dropout-few"].high
    assert limit is not None
    return run.lora_like and run.number("dropout") > limit


def _rank_few_data(run: PlannedRun) -> bool:
    return run.lora_like and run.few_data and run.number("rank") >= HIGH_RANK


def _rank_code(run: PlannedRun) -> bool:
    code = run.job.task == "code" and not run.few_data
    return run.lora_like and code and 0 < run.number("rank") < HIGH_RANK


def _capacity_short(run: PlannedRun) -> bool:
    rule, tokens = find_rule(run.method.name, "capacity", run.case), learned_tokens(run.job)
    if rule is None or rule.low is None or tokens is None:
        return False
    per_rank = parameters_per_rank(run.method, run.model, run.settings.get("target_modules"))
    return per_rank is not None and run.number("rank") * per_rank < tokens * rule.low


def _experts(run: PlannedRun) -> bool:
    return run.lora_like and has_experts(run.model.config)


def _prompt_positions(run: PlannedRun) -> bool:
    limit = max_positions(run.model)
    if run.method.virtual_tokens is None or run.training is None or limit is None:
        return False
    return run.number(run.method.virtual_tokens) + run.training.seq_len > limit


def _prompt_long(run: PlannedRun) -> bool:
    return run.above(run.number("virtual_tokens"), "virtual_tokens")


def _prompt_small_model(run: PlannedRun) -> bool:
    limit = load_rules()["prompt-length-large"].min_parameters
    assert limit is not None
    return run.method.name == "prompt-tuning" and 0 < (run.model.parameters or 0) < limit


def _few_steps(run: PlannedRun) -> bool:
    least = load_rules()["min-steps"].value
    assert isinstance(least, int)
    return run.steps is not None and run.steps < least


def _many_epochs(run: PlannedRun) -> bool:
    return run.above(run_epochs(run.job, run.batch) if run.batch else run.job.epochs, "epochs")


def _batch_large(run: PlannedRun) -> bool:
    return run.above(run.batch, "effective_batch_size")


def _adalora_steps(run: PlannedRun) -> bool:
    if run.method.name != "adalora" or run.steps is None:
        return False
    return bool(run.settings["total_steps"] != run.steps)


def _near(rate: float, other: float) -> bool:
    return other / FAR <= rate <= other * FAR


PREDICATES: Mapping[str, Callable[[PlannedRun], bool]] = {
    "rate-unsourced": _rate_unsourced,
    "rate-outside-tested": _rate_outside_tested,
    "rate-failed": _rate_failed,
    "rate-as-full": _rate_as_full,
    "full-rate-forgets": _full_rate_forgets,
    "qlora-rate-large": _qlora_rate_large,
    "alpha-without-rate": _alpha_without_rate,
    "alpha-below-rank": _alpha_below_rank,
    "rslora-step": _rslora_step,
    "targets-attention": _targets_attention,
    "targets-loftq": _targets_loftq,
    "fp16-nf4": _fp16_nf4,
    "dora-dropout": _dora_dropout,
    "dropout-high": _dropout_high,
    "rank-few-data": _rank_few_data,
    "rank-code": _rank_code,
    "capacity-short": _capacity_short,
    "experts": _experts,
    "prompt-positions": _prompt_positions,
    "prompt-long": _prompt_long,
    "prompt-small-model": _prompt_small_model,
    "few-steps": _few_steps,
    "many-epochs": _many_epochs,
    "batch-large": _batch_large,
    "adalora-steps": _adalora_steps,
}
