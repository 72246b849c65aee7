"""Random questions answered, and each first choice simulated directly, at full depth.

    python benchmarks/direct_verdicts.py [--count 200] [--seed 0]

The answer comes from recordings with variables; here the very run is simulated in its place, and
the verdict, the peak and the risk that follow are held against the answer's. Prints each question
on which they differ, and how many do. Takes about five seconds a question; needs torch.
"""

from __future__ import annotations

import argparse
import random
import sys

from peftadvisor.advisor.estimating import from_simulated, variant_of
from peftadvisor.advisor.places import named
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.recommending import first_choice
from peftadvisor.data.gpus import load_gpus
from peftadvisor.data.models import find_model, model_ids
from peftadvisor.profiles import Estimate
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.library import BUNDLED, REPRESENTATIVE
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.record import record_point
from peftadvisor.specs import Budget, Job, TrainingSpec

METHODS = ("lora-all", "qlora", "lora", "full", "ia3", "ln-tuning", "dora", "houlsby")
TASKS = ("instruction", "classification", "code", "pretraining", None)


def question(rng: random.Random) -> Question:
    """A bundled model, a card with a price or without, a length, a batch and a limit, at random."""
    bundled = [n for n in model_ids() if (BUNDLED / f"{find_model(n).config_key}.zip").exists()]
    model = find_model(rng.choice(bundled))
    gpu = rng.choice([g for g in load_gpus().values() if g.vendor == "nvidia"])
    limit = rng.choice([None, None, int(rng.uniform(0.3, 1.0) * gpu.usable_bytes)])
    most = int(model.config.get("max_position_embeddings") or 512)
    return Question(
        model=model,
        places=named(gpu),
        training=TrainingSpec(seq_len=min(most, rng.choice((128, 256, 512, 1024)))),
        budget=Budget(total_tokens=10**7, max_memory_bytes=limit),
        effective_batch_size=rng.choice((8, 16, 32)),
        methods=tuple(rng.sample(METHODS, 4)),
        job=Job(task=rng.choice(TASKS), examples=rng.choice((500, 20_000, None))),
    )


def directly(estimate: Estimate, asked: Question) -> Estimate:
    """The same run, simulated at its own size."""
    run = estimate.run
    variant, t = variant_of(run), run.training
    kernels = "flash" if "recorded with flash" in estimate.provenance.recording else variant.kernels
    recording = record_point(
        run.model,
        run.method,
        t,
        Device(REPRESENTATIVE[kernels]),  # type: ignore[index]
    )
    simulated = Simulated(
        recording,
        (t.micro_batch_size, t.seq_len, t.target_len),
        t.gradient_accumulation_steps > 1,
        "simulated directly",
    )
    return from_simulated(run, simulated, asked.budget, job=asked.job)


def main() -> int:
    """Ask, answer, simulate, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    answered = different = 0
    worst = 0.0
    for number in range(options.count):
        asked = question(rng)
        estimate = first_choice(asked)
        if estimate is None:
            continue
        answered += 1
        again = directly(estimate, asked)
        off = again.memory.device_peak_bytes / estimate.memory.device_peak_bytes - 1
        worst = max(worst, off, key=abs)
        if again.verdict != estimate.verdict:
            different += 1
            print(number, asked.to_dict()["model"], estimate.run.to_dict(), again.verdict, off)
        if number % 20 == 19:
            print(f"{number + 1} asked, {answered} answered, {different} differ", flush=True)
    print(
        f"{options.count} questions, {answered} with an answer: {different} verdicts differ when "
        f"simulated directly; the worst peak is {worst:+.4%} off"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
