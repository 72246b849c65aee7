"""Every rule on a run: one run that fires it, and one close by that does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from peftadvisor.advisor.advised import Finding
from peftadvisor.advisor.conflicts import PREDICATES, conflicts
from peftadvisor.advisor.hyperparameters import method_settings, training_settings
from peftadvisor.data.models import find_model
from peftadvisor.data.run_rules import load_run_rules
from peftadvisor.methods import find_method, method_names
from peftadvisor.specs import Job, TrainingSpec

Run = dict[str, Any]
LLAMA = "meta-llama/Llama-3.1-8B"


def run(method: str = "lora", model: str = LLAMA, rate: float | None = None, **rest: Any) -> Run:
    """Settings, job and training by the prefixes of their names: ``set_``, ``job_``, none."""
    settings = {k.removeprefix("set_"): v for k, v in rest.items() if k.startswith("set_")}
    job = {k.removeprefix("job_"): v for k, v in rest.items() if k.startswith("job_")}
    others = {k: v for k, v in rest.items() if not k.startswith(("set_", "job_"))}
    training = None if others.pop("untold", False) else TrainingSpec(**others)
    return {
        "method": method,
        "model": model,
        "rate": rate,
        "settings": settings,
        "job": Job(**job),
        "training": training,
    }


def findings(run: Run) -> tuple[Finding, ...]:
    return conflicts(
        find_method(run["method"]),
        run["settings"],
        learning_rate=run["rate"],
        job=run["job"],
        model=find_model(run["model"]),
        training=run["training"],
    )


def fired(run: Run) -> set[str]:
    return {finding.rule for finding in findings(run)}


# Which run fires a rule, which does not. LoRA's rate for Llama-3.1-8B is 2.86e-4 at alpha 32.
EXAMPLES: dict[str, list[tuple[Run, Run]]] = {
    "rate-unsourced": [
        (run("fourierft"), run("lora")),
        (run("ia3", job_task="preference"), run("lora", job_task="preference")),
    ],
    "rate-outside-tested": [
        (run("ia3", rate=1e-2), run("ia3", rate=5e-3)),
        (run("lora", rate=2e-3, set_alpha=32), run("lora", rate=5e-4, set_alpha=32)),
        # 2e-3 at alpha 8 is the step of 5e-4 at alpha 32.
        (run("lora", rate=5e-3, set_alpha=8), run("lora", rate=2e-3, set_alpha=8)),
        (run(rate=2e-4, job_task="preference"), run(rate=5e-6, job_task="preference")),
        (run("hira", rate=4e-4), run("hira", rate=2e-3)),
    ],
    "rate-failed": [
        (run("ia3", rate=1e-4), run("ia3", rate=1e-3)),
        (run("ln-tuning", rate=1e-4), run("ln-tuning", rate=3e-4)),
        (run("prompt-tuning", rate=1e-4), run("prompt-tuning", rate=1e-3)),
        (run("prefix-flat", rate=1e-3), run("prefix-flat", rate=5e-3)),
        (run("unilora", rate=1e-4), run("unilora", rate=1e-2)),
    ],
    # Full fine-tuning's own rate here is 2.86e-5.
    "rate-as-full": [
        (run(rate=2e-5), run(rate=5e-5)),
        (run("houlsby", rate=2e-5), run("full", rate=2e-5)),
        (run(rate=5e-7, job_task="preference"), run(rate=5e-6, job_task="preference")),
    ],
    "full-rate-forgets": [(run("full", rate=6e-5), run("full", rate=5e-5))],
    "qlora-rate-large": [
        (
            run("qlora", "huggyllama/llama-30b", 2e-4),
            run("qlora", "meta-llama/Llama-2-13b-hf", 2e-4),
        ),
        (
            run("lora-all", "huggyllama/llama-30b", 2e-4, quantization="nf4"),
            run("lora-all", "huggyllama/llama-30b", 2e-4),
        ),
        # At alpha 32 half of the rate makes the same step.
        (
            run("qlora", "huggyllama/llama-30b", 1e-4, set_alpha=32),
            run("qlora", "huggyllama/llama-30b", 1e-4, set_alpha=16),
        ),
    ],
    "alpha-without-rate": [
        (run(rate=2.86e-4, set_alpha=128), run(rate=2.86e-4, set_alpha=32)),
        (run(rate=2.86e-4, set_alpha=128), run(rate=0.715e-4, set_alpha=128)),
        (run(rate=2.86e-4, set_alpha=8), run(rate=2.86e-4, set_alpha=16)),
        (run("qlora", rate=2e-4, set_alpha=64), run("qlora", rate=2e-4, set_alpha=32)),
    ],
    "alpha-below-rank": [
        (run(set_rank=64, set_alpha=32), run(set_rank=32, set_alpha=32)),
        (run(set_rank=64, set_alpha=127), run(set_rank=64, set_alpha=128)),
        (run("qlora", set_rank=64), run("rslora", set_rank=64)),
    ],
    # At rank 64 and alpha 64 the rate would be 2.86e-4 / 2 / 8 = 1.8e-5.
    "rslora-step": [
        (
            run("rslora", rate=1e-4, set_rank=64, set_alpha=64),
            run("rslora", rate=3e-5, set_rank=64, set_alpha=64),
        ),
        (
            run("rslora", rate=1e-4, set_rank=64, set_alpha=64),
            run("lora", rate=1e-4, set_rank=64, set_alpha=64),
        ),
    ],
    "targets-attention": [
        (run("lora"), run("lora-all")),
        (
            run(set_target_modules=["q_proj", "k_proj", "self_attn.v_proj", "o_proj"]),
            run(set_target_modules=["q_proj", "down_proj"]),
        ),
        (run("dora"), run("lora-mlp")),
    ],
    "targets-loftq": [(run("loftq", set_target_modules=["q_proj"]), run("loftq"))],
    "fp16-nf4": [
        (run("qlora", dtype="fp16"), run("qlora", dtype="bf16")),
        (run("lora", dtype="fp16", quantization="nf4"), run("lora", dtype="fp16")),
        (run("qlora", dtype="fp16"), run("qlora", dtype="fp16", quantization="int8")),
    ],
    "dora-dropout": [(run("dora", set_dropout=0.05), run("lora", set_dropout=0.05))],
    "dropout-high": [(run(set_dropout=0.2), run(set_dropout=0.1))],
    "rank-few-data": [
        (run(set_rank=64, job_examples=999), run(set_rank=64, job_examples=1000)),
        (run(set_rank=64, job_examples=999), run(set_rank=32, job_examples=999)),
    ],
    "rank-code": [
        (run(set_rank=16, job_task="code"), run(set_rank=64, job_task="code")),
        (run(set_rank=16, job_task="code"), run(set_rank=16, job_task="instruction")),
        (run(set_rank=16, job_task="code"), run(set_rank=16, job_task="code", job_examples=99)),
    ],
    # Rank 8 on all linear layers trains 20,971,520: enough for twice as many tokens.
    "capacity-short": [
        (
            run("lora-all", job_examples=10**6, job_learned_per_example=42),
            run("lora-all", job_examples=10**6, job_learned_per_example=41),
        ),
        # On query and value alone it trains 3,407,872.
        (
            run("lora", job_examples=10**6, job_learned_per_example=7),
            run("lora", job_examples=10**6, job_learned_per_example=6),
        ),
    ],
    "experts": [
        (run("lora", "mistralai/Mixtral-8x7B-v0.1"), run("lora")),
        (
            run("lora", "mistralai/Mixtral-8x7B-v0.1"),
            run("ln-tuning", "mistralai/Mixtral-8x7B-v0.1"),
        ),
    ],
    # GPT-2 has 1024 positions.
    "prompt-positions": [
        (
            run("prompt-tuning", "openai-community/gpt2", seq_len=1005),
            run("prompt-tuning", "openai-community/gpt2", seq_len=1004),
        ),
        (
            run("prompt-tuning", "openai-community/gpt2", seq_len=1005),
            run("prompt-tuning", "google-t5/t5-11b", seq_len=1005),
        ),
    ],
    "prompt-long": [
        (
            run("prompt-tuning", set_virtual_tokens=101),
            run("prompt-tuning", set_virtual_tokens=100),
        ),
        (
            run("prefix-tuning", set_virtual_tokens=201),
            run("prefix-tuning", set_virtual_tokens=101),
        ),
    ],
    "prompt-small-model": [(run("prompt-tuning"), run("prompt-tuning", "google-t5/t5-11b"))],
    "few-steps": [
        (run(job_steps=99), run(job_steps=100)),
        # 792 examples in batches of 2 · 4.
        (
            run(job_examples=792, job_epochs=1, micro_batch_size=2, gradient_accumulation_steps=4),
            run(job_examples=793, job_epochs=1, micro_batch_size=2, gradient_accumulation_steps=4),
        ),
        (run(job_examples=9, job_epochs=1), run(job_examples=9)),
    ],
    "many-epochs": [
        (run(job_epochs=4), run(job_epochs=3)),
        (run(job_epochs=9, job_task="code"), run(job_epochs=8, job_task="code")),
        (run(job_epochs=4), run("prompt-tuning", job_epochs=4)),
        (run(job_steps=4000, job_examples=999), run(job_steps=4000, job_examples=2000)),
        (run(job_epochs=4, untold=True), run(job_steps=9, untold=True)),
    ],
    "batch-large": [
        (run(micro_batch_size=33), run(micro_batch_size=32)),
        (
            run(micro_batch_size=8, gradient_accumulation_steps=8),
            run("qlora", micro_batch_size=8, gradient_accumulation_steps=8),
        ),
        (run("full", micro_batch_size=256), run("full", micro_batch_size=128)),
    ],
    "adalora-steps": [
        (
            run("adalora", job_steps=500, set_total_steps=1000),
            run("adalora", job_steps=500, set_total_steps=500),
        ),
        (run("adalora", job_steps=500), run("adalora")),
    ],
}
PAIRS = [(rule, *pair) for rule, pairs in EXAMPLES.items() for pair in pairs]


def test_every_rule_has_a_predicate_and_examples() -> None:
    assert list(load_run_rules()) == list(PREDICATES) == list(EXAMPLES)


@pytest.mark.parametrize(("rule", "bad", "good"), PAIRS, ids=[rule for rule, _, _ in PAIRS])
def test_rules_fire_where_they_should_and_not_beside(rule: str, bad: Run, good: Run) -> None:
    assert rule in fired(bad)
    assert rule not in fired(good)


def test_a_finding_says_what_the_table_says() -> None:
    (found,) = (f for f in findings(run("dora", set_dropout=0.1)) if f.rule == "dora-dropout")
    row = load_run_rules()["dora-dropout"]
    assert (found.kind, found.statement, found.source, found.confidence) == (
        "warns",
        row.statement,
        row.source,
        "high",
    )


def test_what_is_not_said_is_not_judged() -> None:
    assert fired(run("lora-all", untold=True)) == set()
    assert fired(run("full", untold=True)) == set()


@hypothesis_settings(deadline=None)
@given(
    method=st.sampled_from(method_names()),
    model=st.sampled_from([LLAMA, "Qwen/Qwen3-8B", "mistralai/Mistral-7B-v0.1"]),
    task=st.sampled_from(["instruction", "reasoning", "code", None]),
    examples=st.integers(5000, 10**6),
)
def test_advice_followed_meets_no_warning(
    method: str, model: str, task: Any, examples: int
) -> None:
    """Settings and learning rate as advised: only what no setting can mend is left to be said."""
    chosen, spec = find_method(method), find_model(model)
    job = Job(task=task, examples=examples, learned_per_example=100, epochs=1)
    settings = {a.name: a.value for a in method_settings(chosen, spec, job)}
    rank, alpha = settings.get("rank"), settings.get("alpha")
    rates = training_settings(
        chosen,
        spec,
        job,
        effective_batch_size=32,
        trained_rank=rank if isinstance(rank, int) else None,
        alpha=float(alpha) if isinstance(alpha, (int, float)) else None,
    )
    rate = next((a.value for a in rates if a.name == "learning_rate"), None)
    found = fired(
        {
            "method": method,
            "model": model,
            "rate": rate,
            "settings": settings,
            "job": job,
            "training": TrainingSpec(micro_batch_size=32),
        }
    )
    allowed = {"rate-unsourced", "prompt-small-model", "alpha-below-rank", "adalora-steps"}
    allowed |= {"capacity-short"} if rank in (64, 128, 256) else set()
    assert found <= allowed
