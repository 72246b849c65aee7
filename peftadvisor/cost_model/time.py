"""Step time as a roofline over the recorded kernels. Uncalibrated: spec sheet and stated shares.

t_kernel = max(FLOPs / (peak × achievable), bytes / (bandwidth × 0.8));
step = max(Σ t_kernel, kernels × dispatch cost). Leaves out communication, data loading, tile and
wave quantization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peftadvisor.profiles import Flops, StepTime
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import GpuSpec, TrainingSpec

BANDWIDTH_SHARE = 0.8
"""Share of the spec-sheet bandwidth that elementwise kernels are taken to reach."""

DISPATCH_S = 7e-6
"""CPU time to launch one operator in eager mode: 4 to 10 µs are reported."""

LOW, HIGH = 0.6, 1.8
"""An uncalibrated 90 % interval, as factors: spec-sheet rooflines miss by 16 to 72 %."""

_RATES: Mapping[str, tuple[str, ...]] = {
    "bfloat16": ("bf16", "fp16", "fp32"),
    "float16": ("fp16", "fp32"),
    "float32": ("fp32",),
    "int8": ("int8", "fp16"),
    "int32": ("int8", "fp16"),
}


def predict_flops(uses: Sequence[KernelUse], training: TrainingSpec) -> Flops:
    """FLOPs of one optimizer step: every micro-batch and the update."""
    micro = training.gradient_accumulation_steps
    by_phase = dict.fromkeys(Phase, 0)
    for use in uses:
        by_phase[use.phase] += use.count * use.flops
    return Flops(
        forward=micro * (by_phase[Phase.FORWARD] + by_phase[Phase.LOSS]),
        backward=micro * by_phase[Phase.BACKWARD],
        recompute=micro * by_phase[Phase.RECOMPUTE],
        optimizer=by_phase[Phase.OPTIMIZER],
    )


def step_seconds(
    uses: Sequence[KernelUse], training: TrainingSpec, gpu: GpuSpec
) -> Mapping[str, float]:
    """Seconds of one optimizer step by what bounds each kernel; the step takes their sum.

    Where launching all kernels takes longer than running them, that alone is the step.
    """
    micro = training.gradient_accumulation_steps
    compute = memory = dispatch = 0.0
    for use in uses:
        times = use.count * (1 if use.phase == Phase.OPTIMIZER else micro)
        flops_s, bytes_s = _kernel_seconds(use, gpu)
        dispatch += times * DISPATCH_S
        compute += times * flops_s if flops_s >= bytes_s else 0.0
        memory += times * bytes_s if bytes_s > flops_s else 0.0
    if dispatch > compute + memory:
        return {"kernel launches": dispatch}
    return {"compute": compute, "memory bandwidth": memory}


def predict_time(
    run: Simulated, uses: Sequence[KernelUse], training: TrainingSpec, gpu: GpuSpec, gpus: int
) -> StepTime:
    """Seconds per optimizer step and the throughput of all GPUs (data parallel, no overhead)."""
    bounds = step_seconds(uses, training, gpu)
    step = sum(bounds.values())
    samples = training.micro_batch_size * training.gradient_accumulation_steps * gpus
    return StepTime(
        step_s=step,
        low_s=LOW * step,
        high_s=HIGH * step,
        tokens_per_s=samples * _tokens_per_sample(run, training) / step,
        samples_per_s=samples / step,
        bound=max(bounds, key=lambda name: bounds[name]),
    )


def _kernel_seconds(use: KernelUse, gpu: GpuSpec) -> tuple[float, float]:
    dtype = use.name.rpartition(".")[2]
    rate = next(
        (
            gpu.peak_flops_per_s[r] * gpu.achievable.get(r, gpu.achievable["default"])
            for r in _RATES.get(dtype, ("fp32",))
            if r in gpu.peak_flops_per_s
        ),
        0.0,
    )
    flops_s = use.flops / rate if use.flops and rate else 0.0
    return flops_s, use.touched_bytes / (gpu.memory_bandwidth_bytes_per_s * BANDWIDTH_SHARE)


def _tokens_per_sample(run: Simulated, training: TrainingSpec) -> int:
    facts = run.recording.facts
    source = training.seq_len if facts["uses_source"] else 0
    return source + (training.target_len if facts["uses_target"] else 0)
