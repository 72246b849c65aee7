"""What watching a training loop costs: the same steps with and without, turn about.

    python benchmarks/overhead.py [--rounds 30]

Prints the median of the paired ratios of step times, watched over unwatched, and their quartiles.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from peftadvisor.data.models import find_model
from peftadvisor.profilers.watching import Watch
from peftadvisor.profilers.workload import Workload
from peftadvisor.specs import MethodSpec, TrainingSpec

TRAINING = TrainingSpec(micro_batch_size=2, seq_len=64, target_len=32, dtype="fp32")


def main() -> None:
    """Alternate watched and unwatched steps of LoRA on T5-small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    workload = Workload(find_model("t5-small"), MethodSpec(name="lora"), TRAINING)
    watch = Watch(workload.model, workload.optimizer)

    def plain() -> float:
        started = time.perf_counter()
        workload.step()
        return time.perf_counter() - started

    def watched() -> float:
        with watch:
            return plain()

    for _ in range(3):
        plain()
    ratios = []
    for number in range(rounds):
        first, second = (plain, watched) if number % 2 else (watched, plain)
        took = {first: first(), second: second()}
        ratios.append(took[watched] / took[plain])
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"watched / unwatched: {median:.4f} (quartiles {low:.4f} to {high:.4f}, {rounds} pairs)")


if __name__ == "__main__":
    main()
