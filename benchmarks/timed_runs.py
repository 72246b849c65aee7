"""Published step times as kernel uses: what ``fit_rates.py`` fits constants on.

Fine-tuning rows are read as ``peftadvisor validate`` reads them. Pretraining rows of llm_foundry
(MPT, full, 8 GPUs, sharded) stand in for GPUs that have no others: GPT-2 of the same sizes with
flash attention, whose update is shared by the GPUs; communication is not simulated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from peftadvisor.advisor.estimating import variant_of
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.measurements import Measurement, read_measurements
from peftadvisor.data.models import find_model
from peftadvisor.integrations.published import Published, as_run
from peftadvisor.simulator.obtain import obtain
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import GpuSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec

PRETRAINING = "llm_foundry"
MPT_GPUS = {
    "NVIDIA a100_80gb": "a100-80g",
    "NVIDIA a100_40gb": "a100-40g",
    "NVIDIA h100_80gb": "h100-sxm",
}
MPT_SIZES = {
    "MPT-125m": (768, 12, 12),
    "MPT-350m": (1024, 24, 16),
    "MPT-760m": (1536, 24, 12),
    "MPT-1b": (2048, 24, 16),
    "MPT-3b": (2560, 32, 20),
    "MPT-7b": (4096, 32, 32),
    "MPT-13b": (5120, 40, 40),
    "MPT-30b": (7168, 48, 56),
}
"""Width, layers, heads."""
MPT_VOCABULARY, MPT_POSITIONS = 50368, 8192
SHARDS = 8
UNLIKE = {
    "boft": "its permutations stayed on the host and were copied in every forward",
    "lora-fa": "its update solves a system per layer, for which the host waits",
}
"""Runs that did something else than what is simulated, by method or model."""


@dataclasses.dataclass(frozen=True, slots=True)
class TimedRun:
    """A measured step: ``group`` is what is left out together, ``unlike`` why not to compare."""

    row_id: str
    source: str
    group: str
    name: str
    gpu: GpuSpec
    training: TrainingSpec
    uses: tuple[KernelUse, ...]
    measured_s: float
    unlike: str = ""


def timed_runs(path: Path) -> list[TimedRun]:
    """Every step time in the file that can be simulated."""
    rows = read_measurements(path)
    tuned = [run for row in rows if (run := _fine_tuned(row))]
    return tuned + [run for row in rows if (run := _pretrained(row))]


def _fine_tuned(row: Measurement) -> TimedRun | None:
    read = as_run(row)
    if not isinstance(read, Published) or "step" not in read.measured:
        return None
    run, framework = read.timed, str(row.method_config.get("framework_config", ""))
    method = run.method.name if row.source_id == "peft_metamath" else row.method
    short = run.model.id.rpartition("/")[2]
    return TimedRun(
        row_id=row.row_id,
        source=row.source_id,
        group=method if row.source_id == "peft_metamath" else short,
        name=f"{short} {method} {framework} b{run.training.micro_batch_size}",
        gpu=run.gpu,
        training=run.training,
        uses=obtain(variant_of(run), exact=True, progress=print).kernel_uses(),
        measured_s=read.measured["step"],
        unlike=next(
            (why for what, why in UNLIKE.items() if what in f"{method} {short}".lower()), ""
        ),
    )


def _pretrained(row: Measurement) -> TimedRun | None:
    wanted = row.source_id == PRETRAINING and row.n_gpus == SHARDS and row.gpu in MPT_GPUS
    short = (row.seq_len or 0) <= MPT_POSITIONS
    if not wanted or not short or "fp8" in row.compute_dtype or row.throughput is None:
        return None
    assert row.micro_batch_size
    assert row.grad_accum
    assert row.seq_len
    training = TrainingSpec(
        micro_batch_size=row.micro_batch_size,
        gradient_accumulation_steps=row.grad_accum,
        seq_len=row.seq_len,
        optimizer="adamw-loop",
        gradient_checkpointing="non-reentrant" if row.gradient_checkpointing == "full" else "none",
        attention="flash_attention_2",
    )
    gpu = find_gpu(MPT_GPUS[row.gpu])
    run = RunSpec(model=_mpt(row.model), method=MethodSpec(name="full"), training=training, gpu=gpu)
    return TimedRun(
        row_id=row.row_id,
        source=PRETRAINING,
        group=row.model,
        name=f"{row.model} b{row.micro_batch_size} s{row.seq_len}",
        gpu=gpu,
        training=training,
        uses=tuple(_sharded(obtain(variant_of(run), exact=True, progress=print).kernel_uses())),
        measured_s=row.micro_batch_size * row.grad_accum * row.seq_len / row.throughput,
    )


def _mpt(name: str) -> ModelSpec:
    """GPT-2 with the sizes of an MPT model."""
    width, layers, heads = MPT_SIZES[name]
    base = find_model("openai-community/gpt2")
    sizes = {"n_embd": width, "n_layer": layers, "n_head": heads, "vocab_size": MPT_VOCABULARY}
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    places = dict.fromkeys(("n_positions", "n_ctx"), MPT_POSITIONS)
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id"), 0)
    return dataclasses.replace(
        base,
        id=f"mpt/{name}",
        config={
            **base.config,
            **sizes,
            **dropouts,
            **places,
            **tokens,
            "activation_function": "gelu",
        },
        config_key=name.lower(),
        parameters=None,
        checkpoint_parameters=None,
    )


def _sharded(uses: tuple[KernelUse, ...]) -> Iterator[KernelUse]:
    """Each GPU updates its share of the parameters."""
    for use in uses:
        shards = SHARDS if use.phase == Phase.OPTIMIZER else 1
        yield dataclasses.replace(use, touched_bytes=use.touched_bytes // shards)
