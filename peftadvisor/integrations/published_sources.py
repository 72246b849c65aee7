"""What the rows of a source leave unsaid and its scripts say: one entry per source.

Read off the scripts at the commits that the rows name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peftadvisor.data.measured_runs import L40S_LONGEST_BATCH_TOKENS, LEFT_ON_CPU_BYTES
from peftadvisor.data.measurements import Measurement
from peftadvisor.specs import Checkpointing, Quantization

_MEAN_TOKENS = re.compile(r"mean real tokens/sample=([0-9.]+)")
_PURE_STEP_TIME = re.compile(r"pure step time=([0-9.]+) s")
_TRANSFORMERS = re.compile(r'"transformers": "([0-9]+)\.([0-9]+)')
_LAST_OLD_MINOR = 45
_TARGET = re.compile(r"target ([1-9][0-9]{0,6})\b")
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """How to read a source's rows.

    ``training`` are fields of TrainingSpec; ``by_framework`` those that the field
    ``framework_config`` of ``method_config`` stands for, ``sharded_base`` those that hold where a
    quantized base is divided among GPUs. ``lengths`` are the nominal lengths of batches: the one
    nearest to what a row prints holds, the longest where it prints none. ``checkpointing`` is what
    "full" means, ``nf4`` what "nf4" means. ``left_on_cpu_bytes`` is, by method, what these runs
    kept on the CPU and a simulation has on the GPU.
    """

    training: Mapping[str, Any] = field(default_factory=dict)
    by_framework: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sharded_base: Mapping[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    checkpointing: Checkpointing = "non-reentrant"
    nf4: Quantization = "nf4"
    left_on_cpu_bytes: Mapping[str, int] = field(default_factory=dict)


CONVENTIONS: Mapping[str, Convention] = {
    # Its loop does not clip gradients; the longest batch is inferred (data/measured_runs.py).
    "peft_metamath": Convention(
        training={"max_grad_norm": 0.0},
        lengths=(L40S_LONGEST_BATCH_TOKENS,),
        left_on_cpu_bytes=LEFT_ON_CPU_BYTES,
    ),
    # Packed to 4096 tokens (santacoder: 2048); what rows print is derived from rounded rates.
    # In transformers' Trainer. TRL casts norms alone to fp32 (steady memory leaves no room for
    # fp32 embeddings), but not where the quantized base is sharded; the accelerated plugin casts
    # nothing. Batches are per GPU, as its rates are.
    "fms_acceleration": Convention(
        training={"loop": "trainer"},
        by_framework={
            "baseline-peft-bnb": {"kbit_preparation": "trl"},
            "accelerated-peft-bnb": {"kbit_preparation": "none"},
            "foak-fast-kernels": {"loss": "fused"},
            "accelerated-peft-bnb-foak": {"kbit_preparation": "none", "loss": "fused"},
            "accelerated-peft-autogptq": {"kbit_preparation": "none"},
            "accelerated-peft-autogptq-foak": {"kbit_preparation": "none", "loss": "fused"},
        },
        sharded_base={"kbit_preparation": "none"},
        lengths=(2048, 4096),
        checkpointing="reentrant",
        nf4="nf4-dq",
    ),
}
_PLAIN = Convention()


def convention(row: Measurement) -> Convention:
    """How to read a row."""
    return CONVENTIONS.get(row.source_id, _PLAIN)


def batch_length(row: Measurement) -> int | None:
    """Tokens per sample in the largest batch, None where neither row nor source says it."""
    nominal = convention(row).lengths
    if not nominal:
        return row.seq_len
    if row.seq_len is None:
        return max(nominal)
    return min(nominal, key=lambda length: abs(length - (row.seq_len or 0)))


def transformers_version(row: Measurement) -> str:
    """Which transformers ran, in the words of TrainingSpec; "5" where the row does not say it."""
    found = _TRANSFORMERS.search(row.versions)
    major, minor = (int(found[1]), int(found[2])) if found else (5, 0)
    if major == 4:
        return "4" if minor > _LAST_OLD_MINOR else "4.45"
    return "5" if major > 4 else str(major)


def target_length(row: Measurement) -> int | None:
    """Tokens of a target, where the row says it as our own rows do."""
    found = _TARGET.search(row.seq_len_kind)
    return int(found[1]) if found else None


def timed_length(row: Measurement) -> int | None:
    """Tokens per sample in a batch of mean length, where a row's batches differ; else None.

    The mean of the real tokens, rounded up to a multiple of 16: samples of like length are batched
    together (peft_metamath sorts 80 for 20 batches of 4), so a batch is padded by few tokens.
    """
    mean = _mean_tokens(row)
    return None if mean is None else -(-int(mean) // _ALIGNMENT) * _ALIGNMENT


def step_seconds(row: Measurement, length: int) -> float | None:
    """Seconds of one optimizer step that the row tells, None where it tells none.

    From the step time itself, else from the throughput: tokens of a step (padding included, at
    ``length``) over tokens/s, or samples over samples/s. Where real tokens are counted, the
    number of steps follows from them, and the time is that of all steps over their number. None
    also where our own rows tell the longest of batches that differ.
    """
    if row.train_time_kind == "median of one optimizer step":
        return None if row.seq_len_kind.startswith("longest") else row.train_time_s
    samples = (row.micro_batch_size or 1) * (row.grad_accum or 1)
    speed, unit = row.throughput, row.throughput_unit
    if speed is None:
        return None
    if "real tokens" in unit:
        return _over_steps(row, speed, samples)
    if unit.startswith("tokens/s"):
        return samples * length / speed
    if unit.startswith("samples/s"):
        return samples / speed
    return speed if unit == "s/it (optimizer step)" else None


def _over_steps(row: Measurement, speed: float, samples: int) -> float | None:
    mean, pure = _mean_tokens(row), _PURE_STEP_TIME.search(row.train_time_kind)
    if mean is None or pure is None:
        return None
    seconds = float(pure[1])
    steps = round(speed * seconds / (mean * samples))
    return seconds / steps if steps else None


def _mean_tokens(row: Measurement) -> float | None:
    found = _MEAN_TOKENS.search(row.seq_len_kind)
    return float(found[1]) if found else None
