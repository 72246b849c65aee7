"""Runs that fire a rule, each beside one close by that does not."""

from __future__ import annotations

from typing import Any

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
