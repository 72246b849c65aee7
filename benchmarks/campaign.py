"""Runs of many models and methods, measured on the card of this machine, the most telling first.

    python benchmarks/campaign.py --out runs.jsonl [--device cuda:0] [--minutes 9] [--small]
    python benchmarks/campaign.py --out runs.jsonl --table

Every run ends as a line of JSON in the file, and is not made again: start the script as often as
it takes. A chunk ends with its minutes: it begins no run that might not end in time, and a run
that did not is made again by the next. What this machine cannot run is said and passed over.
``--small`` takes short models and batches, for a processor. ``--table`` simulates the runs of
the file and prints simulated over measured, allocated and reserved.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from multiprocessing import set_forkserver_preload
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from peftadvisor.data.models import find_model
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.profilers.child import ChildDiedError, Nursery, in_child
from peftadvisor.profilers.profiling import measured_profile
from peftadvisor.profilers.recorded import run_of
from peftadvisor.profilers.simulated import gpu_of, simulated_profile
from peftadvisor.profilers.store import open_store
from peftadvisor.profilers.sweep import Planned, ended_runs, key_of, sweep
from peftadvisor.profiles import Profile
from peftadvisor.simulator.depth import at_depth, layers_for
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec
from peftadvisor.units import MIB

BASE = TrainingSpec(micro_batch_size=4, seq_len=512, target_len=128)
SMALL = TrainingSpec(micro_batch_size=2, seq_len=32, target_len=16, dtype="fp32")
LLAMA, LLAMA_3B, QWEN, QWEN_7B, GEMMA, T5, T5_3B, BERT, MIXTRAL, QWEN_MOE, VIT, WHISPER = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-7B",
    "google/gemma-3-1b-pt",
    "google-t5/t5-large",
    "google-t5/t5-3b",
    "google-bert/bert-large-uncased",
    "mistralai/Mixtral-8x7B-v0.1",
    "Qwen/Qwen3-30B-A3B",
    "google/vit-large-patch16-224",
    "openai/whisper-small",
)
CUT = {MIXTRAL: 2, QWEN_MOE: 4}
"""Layers of models that are too large to build whole."""
METHODS = [
    "lora-all",
    "dora",
    "ia3",
    "houlsby",
    "pfeiffer",
    "prefix-tuning",
    "prompt-tuning",
    "ln-tuning",
    "adalora",
    "vera",
    "loha",
    "lokr",
    "oft",
    "boft",
    "hra",
    "rslora",
    "pissa",
    "randlora",
    "miss",
    "road",
    "lora-fa",
    "ladder-side",
    "attention-fusion",
    "compacter",
    "lisa",
    "galore",
]
CHECKPOINTED = {"gradient_checkpointing": "non-reentrant"}

RUN_LIMIT_S = 180.0
"""No run may take longer; one that does is kept as killed."""

Case = tuple[str, str, dict[str, Any]]
Run = tuple[ModelSpec, MethodSpec, TrainingSpec, str]


def cases() -> Iterator[Case]:
    """Model, method and what differs from the base settings."""
    yield from ((model, "lora", {}) for model in (LLAMA, T5, BERT, QWEN, GEMMA, WHISPER))
    yield from ((model, "full", {}) for model in (LLAMA, T5, QWEN))
    yield LLAMA, "lora", CHECKPOINTED
    yield from ((LLAMA, method, {}) for method in METHODS)
    for changes in _settings():
        yield LLAMA, "lora", changes
    for model in (LLAMA_3B, QWEN_7B, T5_3B, VIT, MIXTRAL, QWEN_MOE):
        yield model, "lora", {}
        yield model, "lora-all", CHECKPOINTED
    for kind in ("adamw-loop", "adamw-fused", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd"):
        yield QWEN, "full", {"optimizer": kind}
    for method in ("ia3", "houlsby", "prefix-tuning", "full"):
        yield from ((model, method, {}) for model in (T5, BERT, WHISPER, GEMMA) if method != "lora")
    for quantization in ("nf4", "nf4-dq", "int8"):
        yield LLAMA, "lora-all", {"quantization": quantization}
        yield QWEN_7B, "lora-all", {"quantization": quantization, **CHECKPOINTED}


def _settings() -> Iterator[dict[str, Any]]:
    yield from ({"micro_batch_size": size} for size in (1, 2, 8, 16))
    yield from ({"seq_len": length, "micro_batch_size": 1} for length in (128, 1024, 2048, 4096))
    yield {"gradient_checkpointing": "reentrant"}
    yield {"attention": "eager"}
    yield {"dtype": "fp32"}
    yield {"dtype": "fp32", "amp": True}
    yield {"padded": True}
    yield {"gradient_accumulation_steps": 4}
    yield {"max_grad_norm": 0.0}


def model_of(name: str, small: bool) -> ModelSpec:
    """The model, cut in depth where the grid or the machine asks for it."""
    model = find_model(name)
    if not small and name not in CUT:
        return model
    layers = layers_for(model.config, 1 if small else CUT[name])
    cut = f"{model.id} cut to {' and '.join(map(str, layers.values()))} layers"
    config = at_depth(model.config, layers)
    return replace(model, id=cut, config=config, parameters=None, checkpoint_parameters=None)


def runs_of(device: str, small: bool) -> Iterator[Run]:
    """The grid, each run once."""
    base = SMALL if small else BASE
    seen = set()
    for name, method, changes in cases():
        if small:
            changes = {k: v for k, v in changes.items() if k != "seq_len"}
        model, training = model_of(name, small), replace(base, **changes)
        run = (model, MethodSpec(name=method), training, device)
        key = key_of(run_of("measure", *run))
        if key not in seen:
            seen.add(key)
            yield run


@dataclass(slots=True)
class Chunk:
    """Time of one chunk, and how its runs use it."""

    ends_s: float
    slowest_s: float = 40.0

    @property
    def left_s(self) -> float:
        """Until the chunk ends."""
        return self.ends_s - monotonic()

    def plan(self, runs: Sequence[Run]) -> Iterator[Planned]:
        """The runs, until one as slow as the slowest would not end in time."""
        for run in runs:
            yield Planned(run_of("measure", *run), partial(self._measure, run))
            if self.left_s < self.slowest_s:
                return

    def _measure(self, run: Run, say: Any) -> Profile:
        began, cut = monotonic(), self.left_s < RUN_LIMIT_S
        nursery = Nursery("forkserver", limit_s=max(1.0, min(RUN_LIMIT_S, self.left_s)))
        try:
            made: Profile = in_child(measured_profile, *run, steps=5, say=say, nursery=nursery)
        except ChildDiedError as error:
            if cut and self.left_s <= 0:
                raise ChildDiedError(
                    "the chunk is over; this run is for the next", "interrupted"
                ) from error
            raise
        finally:
            self.slowest_s = max(self.slowest_s, monotonic() - began)
        return made


def machine() -> str:
    """Versions of what is installed here."""
    found = []
    for package in ("torch", "transformers", "peft", "bitsandbytes", "nvidia-ml-py"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {package}")
    return f"Python {platform.python_version()}, {', '.join(found)}"


def measure(out: str, device: str, minutes: float, small: bool) -> None:
    """One chunk."""
    began = monotonic()
    print(machine(), flush=True)
    set_forkserver_preload([measured_profile.__module__, "peft"])
    runs = list(runs_of(device, small))
    chunk = Chunk(began + 60 * minutes)
    made = skipped = 0
    for ended in sweep(out, chunk.plan(runs), lambda _: None):
        made += ended.profile is not None
        skipped += ended.profile is None
        text = ended.failure or _figures(ended.profile)
        run = ended.planned.run
        at = f"{monotonic() - began:6.0f} s"
        print(f"{at}  {run['model']:44} {run['method']:16} {text}", flush=True)
    have = ended_runs(out)
    left = sum(key_of(run_of("measure", *run)) not in have for run in runs)
    print(
        f"{made} measured, {skipped} skipped or failed; {len(runs) - left} of {len(runs)} runs kept"
    )


def _figures(profile: Any) -> str:
    memory = profile.memory
    peaks = [memory.allocated_peak_bytes, memory.reserved_peak_bytes or 0]
    if profile.device_use and profile.device_use.peak_bytes:
        peaks.append(profile.device_use.peak_bytes)
    shown = " ".join(f"{peak / 2**20:,.1f}" for peak in peaks)
    return f"{shown} MiB, {1000 * profile.time.step_s:,.1f} ms a step"


def table(out: str, small: bool) -> None:
    """Simulated over measured of every run in the file."""
    with open_store(out, create=False) as store:
        records = {key_of(record.run): record.profile for record in store.records()}
    devices = {json.loads(key)["device"] for key in records}
    errors: dict[str, list[float]] = {"allocated": [], "reserved": []}
    for run in (run for device in sorted(devices) for run in runs_of(device, small)):
        told = records.get(key_of(run_of("measure", *run)))
        if told is None:
            continue
        model, method, training, _ = run
        line = f"{model.id:44} {method.name:16} {_changes(training, small):40}"
        try:
            made = simulated_profile(model, method, training, gpu_of(told["device"]))
        except PeftAdvisorError as error:
            print(f"{line} not simulated: {error}", flush=True)
            continue
        for kind in errors:
            measured = told["memory"][f"{kind}_peak_bytes"]
            simulated = getattr(made.memory, f"{kind}_peak_bytes")
            if measured and simulated:
                errors[kind].append(simulated / measured - 1)
                line += f"  {kind} {measured / MIB:10,.1f} MiB {errors[kind][-1]:+8.2%}"
        print(line, flush=True)
    for kind, found in errors.items():
        if found:
            mape, worst = np.mean(np.abs(found)), max(found, key=abs)
            print(f"{kind}: {len(found)} runs, MAPE {mape:.3%}, worst {worst:+.3%}")


def _changes(training: TrainingSpec, small: bool) -> str:
    base = asdict(SMALL if small else BASE)
    changed = {k: v for k, v in asdict(training).items() if v != base[k]}
    return ", ".join(f"{k} {v}" for k, v in changed.items())


def main() -> None:
    """Measure a chunk, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a file that ends in .jsonl")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--minutes", type=float, default=8.5, help="of this chunk")
    parser.add_argument("--small", action="store_true", help="short models and batches")
    parser.add_argument("--table", action="store_true", help="simulated over measured")
    given = parser.parse_args()
    if given.table:
        table(str(given.out), given.small)
    else:
        measure(str(given.out), given.device, given.minutes, given.small)


if __name__ == "__main__":
    main()
