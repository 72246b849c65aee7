"""What PreflightCallback costs a step: the same steps with and without its event, turn about.

    python benchmarks/preflight_overhead.py [--rounds 60]

Prints the median of the paired differences of step times over the median step, with its quartiles;
then what the event itself takes, and once per run the check before and the reading after.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from peftadvisor.data.models import find_model
from peftadvisor.integrations.preflight import PreflightCallback
from peftadvisor.profilers.workload import Workload
from peftadvisor.specs import MethodSpec, TrainingSpec

TRAINING = TrainingSpec(micro_batch_size=2, seq_len=64, target_len=32, dtype="fp32")
EVENTS = 10**5


def arguments() -> Any:
    """What of ``TrainingArguments`` is read."""
    return SimpleNamespace(
        per_device_train_batch_size=TRAINING.micro_batch_size,
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        gradient_checkpointing_kwargs=None,
        bf16=False,
        fp16=False,
        max_grad_norm=1.0,
    )


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Alternate steps of LoRA on T5-small with and without the callback's event after them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    run = Workload(find_model("t5-small"), MethodSpec(name="lora"), TRAINING)
    callback = PreflightCallback(
        seq_len=TRAINING.seq_len, target_len=TRAINING.target_len, steps=10**9, say=lambda _: None
    )
    args = arguments()
    parts = {"model": run.model, "optimizer": run.optimizer}
    before = seconds(lambda: callback.on_train_begin(args, None, None, **parts))
    assert callback.report is not None
    print(callback.report.text)

    def checked() -> None:
        run.step()
        callback.on_step_end(args, None, None, **parts)

    for _ in range(3):
        checked()
    differences, steps = [], []
    for number in range(rounds):
        first, second = (run.step, checked) if number % 2 else (checked, run.step)
        took = {first: seconds(first), second: seconds(second)}
        differences.append(took[checked] - took[run.step])
        steps.append(took[run.step])
    low, median, high = np.quantile(differences, (0.25, 0.5, 0.75)) / np.median(steps)
    print(
        f"with - without, of a step of {np.median(steps) * 1e3:.1f} ms: {median:+.3%} "
        f"(quartiles {low:+.3%} to {high:+.3%}, {rounds} pairs)"
    )
    each = seconds(lambda: [callback.on_step_end(args, None, None, **parts) for _ in range(EVENTS)])
    print(f"the event alone: {each / EVENTS * 1e9:.0f} ns, {each / EVENTS / np.median(steps):.6%}")
    after = seconds(lambda: callback.on_train_end(args, None, None, **parts))
    print(f"once: {before:.2f} s before training, {after * 1e3:.1f} ms for the reading")


if __name__ == "__main__":
    main()
