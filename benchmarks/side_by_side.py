"""Runs simulated and measured on this processor, side by side: peak and FLOPs.

    python benchmarks/side_by_side.py [--models t5-small,...] [--methods full,lora,...]

The difference in FLOPs is that of torch's own counter over the real run.
"""

from __future__ import annotations

import argparse
from multiprocessing import set_forkserver_preload

from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import Nursery, in_child
from peftadvisor.profilers.profiling import measured_profile
from peftadvisor.profilers.simulated import simulated_profile
from peftadvisor.specs import MethodSpec, TrainingSpec
from peftadvisor.units import MIB

MODELS = "t5-small,SmolLM2-135M,bert-base-uncased"
METHODS = (
    "full,lora,lora-all,dora,ia3,ln-tuning,bitfit,prompt-tuning,prefix-tuning,houlsby,pfeiffer,"
    "adalora,vera"
)
TRAINING = TrainingSpec(micro_batch_size=2, seq_len=64, target_len=32, dtype="fp32")


def main() -> None:
    """Print a row a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--methods", default=METHODS)
    given = parser.parse_args()
    set_forkserver_preload([measured_profile.__module__, "peft"])
    print(
        f"{'model':32} {'method':14} {'simulated MiB':>14} {'measured MiB':>13} {'peak':>9} FLOPs"
    )
    for name in given.models.split(","):
        for method in given.methods.split(","):
            print(row(name, method), flush=True)


def row(name: str, method: str) -> str:
    """One run."""
    run = (find_model(name), MethodSpec(name=method), TRAINING)
    head = f"{run[0].id:32} {method:14}"
    try:
        ours = simulated_profile(*run)
        real = in_child(
            measured_profile,
            *run,
            "cpu",
            steps=1,
            say=lambda _: None,
            nursery=Nursery("forkserver"),
        )
    except UsageError as error:
        return f"{head} refused: {error}"
    peaks = ours.memory.allocated_peak_bytes, real.memory.allocated_peak_bytes
    flops = [sum(profile.phase_flops.values()) for profile in (ours, real)]
    same = "equal" if flops[0] == flops[1] else f"{flops[0] / flops[1] - 1:+.3%}"
    shown = f"{peaks[0] / MIB:14,.2f} {peaks[1] / MIB:13,.2f} {peaks[0] / peaks[1] - 1:+9.4%}"
    return f"{head} {shown} {same}"


if __name__ == "__main__":
    main()
