"""Hyperparameters by rule: exact values with their derivations, ranges, and every method's rate.

Letters: d hidden size, r rank. Llama-3.1-8B has d = 4096, keys of 1024, MLP of 14336, 32 layers.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.advisor.advised import Advised
from peftadvisor.advisor.amounts import learned_tokens, parameters_per_rank, run_epochs, run_steps
from peftadvisor.advisor.conflicts import conflicts
from peftadvisor.advisor.hyperparameters import method_settings, training_settings
from peftadvisor.advisor.learning_rates import failed_rate, rates_tested
from peftadvisor.advisor.rules import Case, case_of, family_of, find_rule
from peftadvisor.data.hyperparameters import GROUPS, SUPERVISED, load_rules, read_rules, rules_for
from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import Job, ModelSpec, Task

TASKS: tuple[Any, ...] = (None, *get_args(Task))
METHODS = method_names()
LORA_LIKE = [name for name in GROUPS["lora-like"] if name != "adalora"]
LLAMA_8B = find_model("meta-llama/Llama-3.1-8B")
MODELS = {
    name: find_model(name)
    for name in (
        "meta-llama/Llama-3.1-8B",
        "meta-llama/Llama-3.1-70B",
        "Qwen/Qwen3-8B",
        "mistralai/Mistral-7B-v0.1",
        "google-t5/t5-11b",
        "google-bert/bert-base-uncased",
    )
}
TRAINING_NAMES = {
    "learning_rate",
    "learning_rate_factor",
    "tested_learning_rate",
    "failed_learning_rate",
    "rank_beyond",
    "capacity",
    "min_steps",
    "epochs",
    "steps",
    "warmup_ratio",
    "lr_scheduler",
    "weight_decay",
    "max_grad_norm",
    "effective_batch_size",
    "adapter_dtype",
    "optimizer",
}
COLUMNS = (
    "id,methods,hyperparameter,tasks,family,min_parameters,max_examples,max_steps,value,low,high,"
    "formula,exponent,at_alpha,sweep,rule,source,confidence\n"
)


def settings(method: str, model: ModelSpec = LLAMA_8B, **job: Any) -> dict[str, Advised]:
    found = method_settings(find_method(method), model, Job(**job))
    return {advised.name: advised for advised in found}


def training(
    method: str,
    model: ModelSpec = LLAMA_8B,
    *,
    batch: int = 16,
    rank: int | None = None,
    alpha: float | None = None,
    **job: Any,
) -> dict[str, Advised]:
    found = training_settings(
        find_method(method),
        model,
        Job(**job),
        effective_batch_size=batch,
        trained_rank=rank,
        alpha=alpha,
    )
    return {advised.name: advised for advised in found}


def rate(method: str, model: str = "meta-llama/Llama-3.1-8B", **options: Any) -> Any:
    return training(method, find_model(model), **options)["learning_rate"].value


# -- the table --------------------------------------------------------------------------------


def test_every_rule_names_methods_and_hyperparameters_that_exist() -> None:
    for rule in load_rules().values():
        for name in rule.methods:
            assert name in METHODS or name in GROUPS, rule.id
        if rule.hyperparameter in TRAINING_NAMES:
            continue
        covered = [name for name in METHODS if rule.covers(name)]
        having = [n for n in covered if rule.hyperparameter in find_method(n).defaults]
        assert having, rule.id


def test_groups_hold_methods() -> None:
    assert {name for names in GROUPS.values() for name in names} <= set(METHODS)


def test_supervised_is_every_task_but_preference() -> None:
    assert {*SUPERVISED, "preference"} == set(get_args(Task))


@pytest.mark.parametrize("rule", load_rules().values(), ids=lambda rule: rule.id)
def test_values_are_in_range(rule: Any) -> None:
    bounds = {
        "learning_rate": (1e-8, 1),
        "rank": (1, 1024),
        "alpha": (1, 128),
        "dropout": (0, 0.2),
        "epochs": (1, 1000),
        "warmup_ratio": (0, 0.2),
        "weight_decay": (0, 0.1),
        "max_grad_norm": (0.1, 1),
        "effective_batch_size": (1, 128),
    }
    if rule.hyperparameter in bounds:
        low, high = bounds[rule.hyperparameter]
        for number in (rule.value, rule.low, rule.high):
            assert number is None or low <= number <= high
    assert len(rule.rule) <= 200
    assert rule.source
    assert set(rule.tasks) <= set(get_args(Task))


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ("a,lora,rank,,,,,,16,32,64,,,,,text,somebody,low", "out of order"),
        ("a,lora,rank,,,,,,,,,,,,,text,somebody,low", "no value, no formula"),
        ("a,lora,rank,,,,,,16,,,,,,,text,somebody,sure", "high, medium or low"),
        ("a,lora,rank,,,,,,16,-1,,,,,,text,somebody,low", "0 or more"),
        ("a,lora,rank,,,,,,16,,,,,,,text,,low", "'source' is blank"),
        ("a,lora,rank,,,,,,1,,,,,,,t,s,low\na,lora,rank,,,,,,1,,,,,,,t,s,low", "a second rule"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, cells: str, problem: str) -> None:
    path = tmp_path / "rules.csv"
    path.write_text(COLUMNS + cells + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=problem):
        read_rules(path)


def test_the_closest_rule_wins() -> None:
    # A rule that names the method goes before one for its group, then more conditions count.
    def found(method: str, name: str, **case: Any) -> str | None:
        rule = find_rule(method, name, Case(**case))
        return rule and rule.id

    assert found("lora", "dropout") == "dropout"
    assert found("lora", "dropout", examples=999) == "dropout-few"
    assert found("lora", "dropout", examples=1000) == "dropout"
    assert found("dora", "dropout", examples=999) == "dropout-dora"
    assert found("qlora", "learning_rate", parameters=13_016_028_160) == "rate-qlora"
    assert found("qlora", "learning_rate", parameters=32_762_123_264) == "rate-qlora-large"
    assert found("qlora", "learning_rate", task="preference") == "rate-lora-preference"
    assert found("lora", "rank", task="code") == "rank-code"
    assert found("lora", "rank", task="code", examples=500) == "rank-few"
    assert found("houlsby", "learning_rate", task="preference") is None
    assert found("no-such-method", "learning_rate") is None
    assert [rule.id for rule in rules_for("no-such-method", "optimizer")] == ["optimizer"]


# -- families and learning rates ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-3.1-8B", "llama"),
        ("codellama/CodeLlama-7b-hf", "llama"),
        ("01-ai/Yi-6B", None),  # Llama's architecture, trained by others
        ("Qwen/Qwen2.5-0.5B", "qwen"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen"),
        ("Qwen/Qwen3-30B-A3B", None),  # experts
        ("mistralai/Mistral-7B-v0.1", None),
        ("google-t5/t5-11b", "t5"),
    ],
)
def test_families(model: str, family: str | None) -> None:
    assert family_of(find_model(model)) == family


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # 5e-4 (2000 / d)^0.781: d = 2048, 3072, 4096 and 8192.
        ("meta-llama/Llama-3.2-1B", 4.908e-4),
        ("meta-llama/Llama-3.2-3B", 3.576e-4),
        ("meta-llama/Llama-3.1-8B", 2.856e-4),
        ("meta-llama/Llama-3.1-70B", 1.662e-4),
        # 5e-4 (2000 / d)^0.0775: d = 2560, 4096 and 5120.
        ("Qwen/Qwen3-4B", 4.905e-4),
        ("Qwen/Qwen3-8B", 4.730e-4),
        ("Qwen/Qwen3-32B", 4.649e-4),
        # No formula.
        ("mistralai/Mistral-7B-v0.1", 2e-4),
        ("01-ai/Yi-6B", 2e-4),
    ],
)
def test_lora_by_family(model: str, expected: float) -> None:
    assert rate("lora", model) == pytest.approx(expected, rel=2e-4)


def test_the_formula_to_the_last_digit() -> None:
    assert rate("lora") == 5e-4 * (2000 / 4096) ** 0.781
    assert rate("full") == 5e-5 * (2000 / 4096) ** 0.781  # a tenth, but for the base's rounding


def test_families_with_a_formula_get_one_rate_and_others_a_sweep() -> None:
    assert "learning_rate_sweep" not in training("lora")
    assert "learning_rate_sweep" not in training("lora", MODELS["Qwen/Qwen3-8B"])
    sweep = training("lora", MODELS["mistralai/Mistral-7B-v0.1"])["learning_rate_sweep"]
    assert sweep.value == (2e-4 / 3, 2e-4, 2e-4 * 3)
    assert sweep.confidence == "low"


def test_rate_and_alpha_are_one_knob_and_rank_is_none() -> None:
    # At alpha 32 the formula's; twice the alpha halves it, whatever the rank.
    assert rate("lora", alpha=32) == rate("lora")
    assert rate("lora", alpha=64) == rate("lora") / 2
    assert rate("lora", alpha=16) == rate("lora") * 2
    assert rate("lora", alpha=32, rank=256) == rate("lora", alpha=32, rank=8)
    assert "alpha is 64" in training("lora", alpha=64)["learning_rate"].rule
    # QLoRA's are for alpha 16.
    assert rate("qlora") == 2e-4
    assert rate("qlora", alpha=16) == 2e-4
    assert rate("qlora", alpha=32) == 1e-4


def test_rslora_takes_less_by_the_root_of_the_rank() -> None:
    # alpha / √r is √r times alpha / r: at r = 64 an eighth of LoRA's rate.
    assert rate("rslora", rank=64) == rate("lora") / 8
    assert rate("rslora", rank=64, alpha=64) == rate("lora") / 16


def test_short_runs_learn_half_as_fast_again() -> None:
    assert rate("lora", steps=99) == rate("lora") * 1.5
    assert rate("lora", steps=100) == rate("lora")
    # 1584 examples in one epoch are 99 batches of 16, 1585 a hundredth one.
    assert rate("lora", examples=1584, epochs=1) == rate("lora") * 1.5
    assert rate("lora", examples=1585, epochs=1) == rate("lora")
    # Left open, three epochs are advised, which make 297 steps.
    assert rate("lora", examples=1584) == rate("lora")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ia3", (3e-3, 1e-3, 5e-3)),
        ("prompt-tuning", (1e-2, 1e-3, 3e-2)),
        ("prefix-tuning", (5e-3, 5e-3, 1e-2)),
        ("vera", (1e-3, None, None)),
        ("road", (1e-3, None, None)),
        ("hira", (4.5e-3, None, None)),
        ("c3a", (0.3, 0.1, 0.3)),
        ("houlsby", (1e-4, 1e-4, 1e-3)),
        ("ln-tuning", (3e-4, 3e-4, None)),
        ("bitfit", (3e-4, 3e-4, None)),
        ("adalora", (5e-4, 5e-4, 8e-4)),
        ("lokr", (3e-3, 1e-3, 3e-3)),
    ],
)
def test_rates_of_methods(method: str, expected: tuple[float | None, ...]) -> None:
    found = training(method)["learning_rate"]
    assert (found.value, found.low, found.high) == expected


def test_qlora_halves_above_13b() -> None:
    assert rate("qlora", "meta-llama/Llama-2-13b-hf") == 2e-4
    assert rate("qlora", "huggyllama/llama-30b") == 1e-4
    assert rate("qlora", "meta-llama/Llama-3.1-70B") == 1e-4


def test_preference_tuning_is_far_slower() -> None:
    assert rate("lora", task="preference") == 5e-6
    assert rate("qlora", task="preference", alpha=32) == 5e-6
    assert rate("full", task="preference") == 5e-7
    assert rate("dora", task="preference") == 2.5e-6
    # No source tells of (IA)³ there: none is invented.
    assert "learning_rate" not in training("ia3", task="preference")


def test_dora_and_lora_plus_are_shares_of_loras() -> None:
    lora, dora = rate("lora"), training("dora")["learning_rate"]
    assert (dora.value, dora.low, dora.high) == (lora * 0.5, lora * 0.33, lora * 0.67)
    assert rate("lora-plus") == lora / 2
    assert rate("pissa", alpha=8) == lora  # its factors do not begin at no change


def test_t5_prompts_come_with_their_optimizer() -> None:
    t5 = training("prompt-tuning", MODELS["google-t5/t5-11b"])
    assert t5["learning_rate"].value == 0.3
    assert t5["optimizer"].value == "adafactor"
    assert training("prompt-tuning")["optimizer"].value == "adamw-fused"


def test_few_shot_recipes_of_t5() -> None:
    model = MODELS["google-t5/t5-11b"]
    found = training("ia3", model, task="few-shot")
    assert {name: found[name].value for name in ("learning_rate", "steps", "warmup_ratio")} == {
        "learning_rate": 3e-3,
        "steps": 1000,
        "warmup_ratio": 0.06,
    }
    assert found["effective_batch_size"].value == 8
    assert found["optimizer"].value == "adafactor"
    assert training("houlsby", model, task="few-shot")["learning_rate"].value == 3e-3


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.id)
def test_every_method_has_a_sourced_rate_or_a_finding_that_it_has_none(
    model: ModelSpec, task: Any
) -> None:
    job = Job(task=task)
    for name in METHODS:
        method = find_method(name)
        rates = training(name, model, task=task)
        found = conflicts(method, {}, learning_rate=None, job=job, model=model, training=None)
        unsourced = "rate-unsourced" in {finding.rule for finding in found}
        assert ("learning_rate" in rates) != unsourced, name
        if not unsourced:
            assert rates["learning_rate"].source


def test_how_many_methods_have_a_rate() -> None:
    having = [name for name in METHODS if "learning_rate" in training(name)]
    assert len(having) == 55
    assert {"galore", "lisa", "mam", "dylora", "fourierft", "krona"}.isdisjoint(having)


@hypothesis_settings(deadline=None)
@given(
    method=st.sampled_from(METHODS),
    model=st.sampled_from(list(MODELS.values())),
    task=st.sampled_from(TASKS),
    alpha=st.none() | st.floats(1, 1024),
    rank=st.none() | st.integers(1, 1024),
    steps=st.integers(1, 100_000),
)
def test_rates_are_finite_in_range_and_above_what_failed(
    method: str,
    model: ModelSpec,
    task: Any,
    alpha: float | None,
    rank: int | None,
    steps: int,
) -> None:
    found = training(method, model, task=task, alpha=alpha, rank=rank, steps=steps)
    if "learning_rate" not in found:
        return
    advised = found["learning_rate"]
    assert isinstance(advised.value, float)
    assert 0 < advised.value < math.inf
    assert (advised.low or 0) <= advised.value <= (advised.high or math.inf)
    case = case_of(model, Job(task=task))
    failed, tested = failed_rate(method, case), rates_tested(method, case)
    assert failed is None or advised.value > failed
    assert alpha is not None or method == "rslora" or tested is not None
    if alpha is None and steps >= 100 and method != "rslora":
        assert tested is not None
        assert tested[0] * 0.999 <= advised.value <= tested[1] * 1.001


# -- rank and the other settings of methods -----------------------------------------------------


@pytest.mark.parametrize(
    ("model", "per_rank"),
    [
        # Per layer (in + out): q and o 2·4096 each, k and v 4096 + 1024, three of 4096 + 14336:
        # 16384 + 10240 + 55296 = 81920, times 32 layers.
        ("meta-llama/Llama-3.1-8B", 2_621_440),
        ("meta-llama/Llama-3.2-1B", 704_512),
        ("meta-llama/Llama-3.2-3B", 1_519_616),
        ("meta-llama/Llama-3.1-70B", 12_943_360),
        # T5-11b, a = 16384, f = 65536: an attention is 4 (1024 + a), a feed-forward 2 (1024 + f);
        # 72 of the one and 48 of the other: 5013504 + 6389760.
        ("google-t5/t5-11b", 11_403_264),
        ("google-bert/bert-base-uncased", None),
        ("mistralai/Mixtral-8x7B-v0.1", None),
    ],
)
def test_parameters_per_rank(model: str, per_rank: int | None) -> None:
    assert parameters_per_rank(find_method("lora"), find_model(model), "all-linear") == per_rank


def test_parameters_per_rank_follow_the_method() -> None:
    def count(method: str, targets: Any = "all-linear") -> int | None:
        return parameters_per_rank(find_method(method), LLAMA_8B, targets)

    # Outputs alone: 4096 + 2·1024 + 4096 + 2·14336 + 4096 = 43008, times 32.
    assert count("lora-fa") == 1_376_256
    assert count("sparse-lora") == 2_621_440 // 4
    assert count("lora-mlp", None) == 55_296 * 32
    assert count("dora") == count("lora")  # magnitudes do not grow with the rank
    assert count("lora", ["q_proj", "v_proj"]) == count("lora", None) == (8192 + 5120) * 32
    assert count("full") is None
    assert count("x-lora") is None  # its experts are frozen


@pytest.mark.parametrize(
    ("tokens_per_example", "expected"),
    [
        (100, 16),  # 10M tokens ask for 3.8, so 4: raised to the range
        (500, 32),  # 50M: 19.07
        (1000, 64),  # 100M: 38.1
        (1677, 64),  # 167.7M: 63.97
        (1679, 128),  # 167.9M: 64.05, beyond the range
        (4000, 256),  # 400M: 152.6
        (40_000, 256),  # 4G: 1526, and 256 is all that anybody recommends
    ],
)
def test_rank_of_an_8b_model(tokens_per_example: float, expected: int) -> None:
    job = {"task": "instruction", "examples": 100_000, "learned_per_example": tokens_per_example}
    found = settings("lora-all", **job)["rank"]
    assert found.value == expected
    assert found.low is not None
    assert found.high is not None
    assert found.low <= expected <= found.high
    assert "2,621,440 parameters a rank" in found.rule


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (None, (16, 16, 64)),
        ("instruction", (16, 16, 64)),
        ("classification", (8, 8, 16)),
        ("reasoning", (64, 64, 256)),
        ("code", (256, 64, 256)),
        ("pretraining", (256, 128, 256)),
    ],
)
def test_rank_by_task_where_the_data_is_small(task: Any, expected: tuple[int, ...]) -> None:
    found = settings("lora", task=task, examples=2000, tokens_per_example=100)["rank"]
    assert (found.value, found.low, found.high) == expected


def test_rank_says_what_it_could_not_look_at() -> None:
    assert "its size is not said" in settings("lora")["rank"].rule
    job = {"examples": 10**6, "tokens_per_example": 1000}
    bert = settings("lora", MODELS["google-bert/bert-base-uncased"], **job)
    assert "the config does not tell" in bert["rank"].rule
    assert bert["rank"].value == 16


def test_rank_of_variants() -> None:
    job = {"examples": 100_000, "learned_per_example": 1000}
    assert settings("lora-fa", **job)["rank"].value == 128  # 100M / 1376256 = 72.7
    dora = settings("dora", **job)["rank"]
    assert (dora.value, dora.low, dora.high) == (32, 32, 64)
    pissa = settings("pissa", **job)
    assert (pissa["rank"].value, pissa["alpha"].value) == (64, 64)
    assert settings("vera", **job)["rank"].value == 256
    assert "rank" not in settings("x-lora", **job)


@hypothesis_settings(deadline=None)
@given(
    method=st.sampled_from(LORA_LIKE),
    task=st.sampled_from(TASKS),
    model=st.sampled_from(list(MODELS.values())),
    examples=st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)),
    tokens=st.integers(1, 10**5),
)
def test_rank_never_falls_with_data(
    method: str, task: Any, model: ModelSpec, examples: tuple[int, int], tokens: int
) -> None:
    fewer, more = (
        settings(method, model, task=task, examples=n, learned_per_example=tokens)["rank"]
        for n in sorted(examples)
    )
    assert isinstance(fewer.value, int)
    assert isinstance(more.value, int)
    assert fewer.value <= more.value
    for found in (fewer, more):
        assert found.low is not None
        assert found.high is not None
        assert isinstance(found.value, int)
        assert found.low <= found.value <= found.high
        assert found.value.bit_count() == 1


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "lora",
            {"rank": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"},
        ),
        ("qlora", {"rank": 16, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}),
        ("lora-mlp", {"rank": 16, "alpha": 32, "dropout": 0.0}),
        ("adalora", {"target_rank": 8, "init_rank": 12, "dropout": 0.0}),
        ("gralora", {"rank": 32, "alpha": 64, "blocks": 2}),
        ("loha", {"rank": 8, "alpha": 8}),
        ("prompt-tuning", {"virtual_tokens": 100}),
        ("prefix-mlp", {"virtual_tokens": 30, "width": 512}),
        ("houlsby", {"reduction": 16}),
        ("compacter", {"reduction": 32, "n": 4}),
        ("parallel-adapter", {"reduction": 2, "scale": 4.0}),
        (
            "ia3",
            {
                "target_modules": ("k_proj", "v_proj", "down_proj"),
                "feedforward_modules": ("down_proj",),
            },
        ),
        ("full", {}),
        ("ln-tuning", {}),
        ("smile", {}),
    ],
)
def test_settings_of_methods(method: str, expected: dict[str, Any]) -> None:
    found = {name: advised.value for name, advised in settings(method).items()}
    assert expected.items() <= found.items()
    assert set(found) - set(expected) <= {"target_modules"}


def test_ia3_targets_by_the_names_of_the_model() -> None:
    t5 = settings("ia3", MODELS["google-t5/t5-11b"])
    assert t5["target_modules"].value == ("k", "v", "wo")
    assert t5["feedforward_modules"].value == ("wo",)
    # Fused projections have no keys apart: PEFT's own table is left to it.
    neox = settings("ia3", find_model("EleutherAI/pythia-1.4b"))
    assert "target_modules" not in neox


def test_settings_that_follow_the_job() -> None:
    assert settings("adalora", steps=777)["total_steps"].value == 777
    assert "total_steps" not in settings("adalora", epochs=3, examples=1000)
    assert settings("lora", examples=999)["dropout"].value == 0.05
    assert settings("lora", examples=999)["rank"].value == 8
    assert settings("prompt-tuning", MODELS["google-t5/t5-11b"])["virtual_tokens"].value == 20


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_ones_that_the_method_has(name: str) -> None:
    method = find_method(name)
    for advised in method_settings(method, LLAMA_8B, Job(steps=500)):
        assert advised.name in method.defaults
        known = next(h for h in method.hyperparameters if h.name == advised.name)
        assert not known.choices or advised.value in known.choices
        if isinstance(advised.value, (int, float)):
            assert (advised.low or 0) <= advised.value <= (advised.high or math.inf)


# -- length and the like -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "epochs"),
    [
        (None, 1),
        (16_000, 1),  # 1000 steps of 16 in one epoch
        (15_999, 2),
        (8_000, 2),
        (7_999, 3),
        (10, 3),
    ],
)
def test_epochs_make_a_thousand_steps_if_three_can(examples: int | None, epochs: int) -> None:
    assert training("lora", examples=examples)["epochs"].value == epochs


def test_what_the_job_says_is_not_advised() -> None:
    assert "epochs" not in training("lora", epochs=5)
    assert "epochs" not in training("lora", steps=50)
    assert "epochs" not in training("prompt-tuning")  # no source


@pytest.mark.parametrize(
    ("method", "batch", "expected"),
    [("lora", 16, 16), ("lora", 128, 32), ("lora", 1, 8), ("full", 16, 32), ("qlora", 64, 64)],
)
def test_batches_are_moved_into_the_range(method: str, batch: int, expected: int) -> None:
    assert training(method, batch=batch)["effective_batch_size"].value == expected


def test_training_of_lora_and_qlora() -> None:
    names = ("warmup_ratio", "lr_scheduler", "weight_decay", "max_grad_norm", "adapter_dtype")
    lora, qlora = ([training(m)[name].value for name in names] for m in ("lora", "qlora"))
    assert lora == [0.1, "cosine", 0.0, 1.0, "fp32"]
    assert qlora == [0.03, "constant", 0.0, 0.3, "fp32"]


def test_amounts() -> None:
    job = Job(examples=1000, epochs=3, tokens_per_example=500, learned_per_example=20)
    assert run_steps(job, 16) == 188  # 3000 / 16 = 187.5
    assert learned_tokens(job) == 20_000
    assert learned_tokens(replace(job, learned_per_example=None)) == 500_000
    assert run_steps(Job(examples=1000), 16) is None
    assert run_steps(Job(steps=7), 16) == 7
    assert run_epochs(Job(steps=250, examples=1000), 16) == 4
    assert run_epochs(Job(steps=250), 16) is None


def advise_on_everything() -> None:
    for name in METHODS:
        settings(name, examples=50_000, learned_per_example=200)
        training(name, examples=50_000, learned_per_example=200)


def test_all_methods_take_less_than_50_ms() -> None:
    advise_on_everything()
    times = []
    for _ in range(5):
        start = time.process_time()
        advise_on_everything()
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def test_no_library_is_loaded_for_all_methods() -> None:
    code = """
import sys
from peftadvisor.advisor.conflicts import conflicts
from peftadvisor.advisor.hyperparameters import method_settings, training_settings
from peftadvisor.data.models import find_model
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import Job, TrainingSpec
model, job = find_model("llama-3.1-8b"), Job(examples=9, learned_per_example=9, epochs=1)
for method in map(find_method, method_names()):
    method_settings(method, model, job)
    training_settings(
        method, model, job, effective_batch_size=8, trained_rank=None, alpha=None
    )
    conflicts(method, {}, learning_rate=1e-4, job=job, model=model, training=TrainingSpec())
print(*sorted({n.partition(".")[0] for n in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"torch", "transformers", "peft", "sklearn"}.isdisjoint(done.stdout.split())
