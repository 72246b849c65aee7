"""Bytes saved for backward, per token and layer, of every method on Llama-3.1-8B; into docs/.

    python benchmarks/saved_activations.py [--write]

Simulated: bf16 base, adapters as each library makes them, flash attention, no checkpointing, no
padding. What a layer adds is the difference between runs of three and of two layers.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.methods import method_names
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.depth import at_depth, depth_fields
from peftadvisor.simulator.step import prepare, trace_run
from peftadvisor.simulator.trace import Phase, Segment, Trace, held_bytes
from peftadvisor.specs import MethodSpec, TrainingSpec

MODEL = "meta-llama/Llama-3.1-8B"
TRAINING = TrainingSpec(micro_batch_size=2, seq_len=512)
DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "saved_activations.md"
HEAD = """# What each method saves for the backward pass

Bytes per token and layer on Llama-3.1-8B, simulated: bf16 base, adapters in the dtype in which
their library makes them, flash attention, no checkpointing, no padding. Made by
`benchmarks/saved_activations.py --write`; the ratio is to full fine-tuning. What is saved once per
weight and not per token (the gates of diff pruning, HRA's products, dense changes of a weight) is
spread over the 1,024 tokens of the batch, and weighs less in larger ones.

| method | bytes per token and layer | ratio |
|---|---|---|
"""


def saved_bytes(method: str, layers: int) -> int:
    """Bytes that the second step's forward pass leaves behind."""
    model = find_model(MODEL)
    config = at_depth(model.config, dict.fromkeys(depth_fields(model.config), layers))
    short = dataclasses.replace(model, config=config)
    prepared = prepare(short, MethodSpec(name=method), TRAINING)
    trace = trace_run(prepared, TRAINING, Device((8, 0)))
    return _left_by_forward(trace)


def _left_by_forward(trace: Trace) -> int:
    change = np.diff(held_bytes(trace), prepend=0)
    step = np.asarray(trace.event_segment) == Segment.STEP_2
    forward = step & (np.asarray(trace.event_phase) == Phase.FORWARD)
    return int(change[forward].sum())


def main() -> None:
    """Print one line per method, or write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tokens = TRAINING.micro_batch_size * TRAINING.seq_len
    rows: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name in method_names():
        try:
            rows[name] = (saved_bytes(name, 3) - saved_bytes(name, 2)) / tokens
        except UsageError as error:
            refused[name] = str(error)
            continue
        print(f"{name:24} {rows[name]:12,.0f}  {rows[name] / rows['full']:.2f}", flush=True)
    lines = [
        f"| {n} | {v:,.0f} | {v / rows['full']:.2f} |"
        for n, v in sorted(rows.items(), key=_by_size)
    ]
    notes = [f"- {name}: {reason}" for name, reason in refused.items()]
    text = HEAD + "\n".join(lines) + "\n\nNot on this model:\n\n" + "\n".join(notes) + "\n"
    if options.write:
        DOCUMENT.write_text(text, encoding="utf-8")


def _by_size(row: tuple[str, float]) -> float:
    return row[1]


if __name__ == "__main__":
    main()
