"""Simulated peaks of inference beside 20 logged ones; into docs/.

    python benchmarks/inference_peaks.py [--write]

Logged: T5 in bf16 with PEFT methods, ``max_memory_allocated`` of an evaluation loop of forward
passes with loss and greedy generation of one token (December 2023, so attention is eager).
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from peftadvisor.data.measured_runs import LoggedInference, logged_inference
from peftadvisor.data.models import find_model
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.inference import trace_inference
from peftadvisor.simulator.step import prepare
from peftadvisor.simulator.trace import Segment, held_bytes
from peftadvisor.specs import MethodSpec, TrainingSpec

BLOCK_BYTES = 512
MIB = 2**20
HEAD_COPY_MIB = 32128 * 1024 * 2 / MIB
"""The adapters library gives T5 an output head of its own, which is not tied to the embedding."""
PEFT_OR_PLAIN = ("hf_lora", "ln_tuning")
LENGTHS = {"copa": (57, 5), "rte": (257, 4), "boolq": (430, 4), "cnn_dailymail": (512, 16)}
"""Source and target tokens of the longest batch: not logged, read off the t5-large rows."""
ONE_BATCH = {("t5-large", "copa"), ("t5-large", "rte")}
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "inference_peaks.md"
HEAD = """# Inference: simulated beside logged peaks

Peak allocated MiB of an evaluation loop, weights included. Logged: `xw-yao/peft_comparison`,
`notebooks/18_dataset_average_table.ipynb` @4311759, exports of December 2023. Simulated by
`benchmarks/inference_peaks.py --write` at the lengths below. "weights" are ours, with the copy of
the output head where the adapters library made one.

| model | method | data | batch | weights | forward: logged | ours | generate: logged | ours |
|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
How a row is read. A pass with `use_cache` leaves keys and values of self- and cross-attention in
its output; on T5-11B cross-attention alone holds 1.5 MiB per source token. The loop keeps the last
output in a variable, so generation comes on top of it, and so does the next batch's forward
pass. Where the evaluation was one batch (t5-large on copa and rte), "forward" is one pass alone;
elsewhere it is a pass with the output of the batch before still held, and as the logged figure is a
running maximum, generation adds to it only if it is higher.

What differs, and why:

- **Lengths are not logged.** Source + target used here, one pair per dataset:
  {lengths}; read off the t5-large rows; batches of other sizes met other longest samples. We take
  this for the difference on boolq and rte and on copa with t5-3b: between unlike batches, what is
  held is that of the batch before, not of the longest one. It cannot be checked from the log.
- **Prefixes made by an MLP** (prefix_tuning, mam, unipelt): the adapters library computes those of
  all layers before the first and holds them, 45 MiB on T5-11B for each of three kinds of attention
  with 30 tokens. Our modules compute them layer by layer, so ours is lower in these rows.
- **pfeiffer** has 23.7 MiB more in the log than the other methods have on top of their weights.
  Nothing among its modules accounts for it; this one is unexplained.
- Allocations count in blocks of 512 bytes; the workspace of cuBLAS (8 MiB) is not counted here.
"""


@dataclass(frozen=True, slots=True)
class Peaks:
    """MiB: weights, and on top of them a pass, a pass after a pass, generation after a pass."""

    weights: float
    alone: float
    after: float
    generate: float


def simulated(row: LoggedInference) -> Peaks:
    """The evaluation of a row at its dataset's lengths."""
    source, target = LENGTHS[row.dataset]
    training = TrainingSpec(
        micro_batch_size=row.batch, seq_len=source, target_len=target, attention="eager"
    )
    prepared = prepare(find_model(row.model), MethodSpec(name=row.method), training)
    prepared.model.to(torch.bfloat16)  # adapters too, as there
    trace = trace_inference(prepared, training, Device((8, 0)), new_tokens=1)
    segment = np.asarray(trace.event_segment)
    held = held_bytes(trace, accumulate=True, block_bytes=BLOCK_BYTES)
    weights = held[segment == Segment.LOAD][-1]
    alone, after, generate = (
        float(held[segment == s].max() - weights) / MIB
        for s in (Segment.STEP_1, Segment.ACCUMULATE, Segment.STEP_2)
    )
    copy = 0 if row.logged_as in PEFT_OR_PLAIN else HEAD_COPY_MIB
    return Peaks(float(weights) / MIB + copy, alone, after, after - alone + generate)


def line(row: LoggedInference) -> str:
    """A row of the table, with the difference from what was logged."""
    peaks = simulated(row)
    forward = peaks.alone if (row.model, row.dataset) in ONE_BATCH else peaks.after
    ours = (peaks.weights + forward, peaks.weights + max(forward, peaks.generate))
    cells = [row.model, row.logged_as, row.dataset, str(row.batch), f"{peaks.weights:,.1f}"]
    for logged, mib in zip((row.forward_mib, row.generate_mib), ours, strict=True):
        cells += [f"{logged:,.1f}", f"{mib:,.1f} ({mib / logged - 1:+.1%})"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table, or write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    lines = []
    for row in logged_inference():
        lines.append(line(row))
        print(lines[-1], flush=True)
    if write:
        lengths = ", ".join(f"{s} + {t} ({name})" for name, (s, t) in LENGTHS.items())
        DOCUMENT.write_text(HEAD + "\n".join(lines) + "\n" + TAIL.replace("{lengths}", lengths))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
