"""How fast: full simulation, evaluating and replaying a recording, a cold start; against targets.

    python benchmarks/speed.py [--runs 7]

Prints each figure with its target. Run it on an idle machine; nothing here is asserted by tests.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from peftadvisor.advisor import estimate
from peftadvisor.advisor.estimating import variant_of
from peftadvisor.advisor.places import for_hire
from peftadvisor.advisor.question import Question
from peftadvisor.advisor.searching import search
from peftadvisor.cuda.allocator import replay
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.methods import COMMON, find_method
from peftadvisor.simulator.obtain import Simulated, obtain
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec

TRAINING = TrainingSpec(micro_batch_size=2, seq_len=512, target_len=128)
SIMULATED = (("google-t5/t5-11b", 4.0), ("meta-llama/Llama-3.1-70B", 6.0))
RECORDED = ("google-t5/t5-11b", "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B")
METHODS = ("full", "lora")
COLD = ("recommend", "--model", "t5-11b", "--gpu", "a100-40g")


def median_s(action: Callable[[], Any], runs: int) -> float:
    """Median wall time of several runs, in seconds."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def line(what: str, value: float, target: float, unit: str) -> None:
    """One figure beside its target."""
    print(f"{what:58} {value:9.3f} {unit:4} target {target:g}", flush=True)


def simulate_fully(model: str, method: str, queue: Any) -> None:
    """In a fresh process: seconds of two full-depth steps, and the most memory it held."""
    import peft
    import torch
    import transformers

    from peftadvisor.simulator.attention import Device
    from peftadvisor.simulator.step import simulate

    lazy = torch.nn, transformers.AutoModelForCausalLM, peft.LoraConfig
    assert all(lazy)
    spec, device = find_model(model), Device((8, 0))
    started = time.perf_counter()
    simulate(spec, MethodSpec(name=method), TRAINING, device)
    elapsed = time.perf_counter() - started
    queue.put((elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def simulations() -> None:
    """Two optimizer steps (three micro-batches) at full depth, imports not counted."""
    context = multiprocessing.get_context("spawn")
    for model, target in SIMULATED:
        for method in METHODS:
            queue: Any = context.Queue()
            process = context.Process(target=simulate_fully, args=(model, method, queue))
            process.start()
            elapsed, held_bytes = queue.get()
            process.join()
            line(f"simulate {model} {method}", elapsed, target, "s")
            line("  memory of that process", held_bytes / 1e9, 1.0, "GB")


def run_of(model: str, method: str, gpu: str) -> RunSpec:
    """One run of the usual size."""
    return RunSpec(
        model=find_model(model),
        method=MethodSpec(name=method),
        training=TRAINING,
        gpu=find_gpu(gpu),
    )


def recordings(runs: int) -> None:
    """Evaluating one recording (allocated peak, FLOPs, bytes of every kernel), then its replay."""
    for model in RECORDED:
        for method in METHODS:
            run = run_of(model, method, "a100-40g")
            simulated = obtain(variant_of(run), exact=True)
            seconds = median_s(lambda s=simulated: _evaluate(s), runs)
            line(f"evaluate {model} {method}", 1e3 * seconds, 2.0, "ms")
            events, sizes = simulated.expand()
            seconds = median_s(lambda e=events, s=sizes: replay(e, s), runs)
            line(f"  replay of its {len(events)} allocations and frees", seconds, 0.15, "s")


def _evaluate(simulated: Simulated) -> tuple[int, int, int]:
    uses = simulated.kernel_uses()
    flops = sum(use.count * use.flops for use in uses)
    touched = sum(use.count * use.touched_bytes for use in uses)
    return simulated.allocated_peak(), flops, touched


def predictions(runs: int) -> None:
    """One run predicted in full, the replay within the card included."""
    for model in RECORDED:
        for method in METHODS:
            run = run_of(model, method, "h200")
            estimate(run, budget=Budget())
            seconds = median_s(lambda r=run: estimate(r, budget=Budget()), runs)
            line(f"predict {model} {method}", 1e3 * seconds, 20.0, "ms")


def ranking(runs: int) -> None:
    """Every micro-batch of an effective batch of 720 on every card with a price, ranked."""
    question = Question(
        model=find_model("meta-llama/Llama-3.1-8B"),
        places=tuple(place for place in for_hire() if place.count == 1),
        training=TrainingSpec(seq_len=1024),
        budget=Budget(total_tokens=10**7),
        effective_batch_size=720,
        methods=None,
    )
    methods = [find_method(name) for name in COMMON]
    found = search(question, methods, None)
    weighed = sum(one.weighed for one in found)
    seconds = median_s(lambda: search(question, methods, None), runs)
    line(f"rank {weighed:,} candidates", seconds, 2.0 * weighed / 10_000, "s")


def cold_start(runs: int) -> None:
    """The whole command in a new process, its modules compiled as an installer leaves them."""
    code = "import sys; from peftadvisor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *COLD]
    unset = "PYTHONDONTWRITEBYTECODE"
    environment = {name: value for name, value in os.environ.items() if name != unset}

    def ask() -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)

    ask()
    seconds = median_s(ask, runs)
    line(f"peftadvisor {' '.join(COLD)}, cold", seconds, 0.8, "s")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    cold_start(options.runs)
    predictions(options.runs)
    ranking(options.runs)
    recordings(options.runs)
    simulations()


if __name__ == "__main__":
    main()
