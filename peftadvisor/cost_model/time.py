"""Step time as a roofline over the recorded kernels. Uncalibrated: spec sheet and stated shares.

t_kernel = max(FLOPs / (peak × achievable), bytes / (bandwidth × 0.8));
step = max(Σ t_kernel, kernels × dispatch cost). Leaves out communication, data loading, tile and
wave quantization.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def predict_flops(run: Simulated, training: TrainingSpec) -> Flops:
    """FLOPs of one optimizer step: every micro-batch and the update."""
    micro = training.gradient_accumulation_steps
    by_phase = dict.fromkeys(Phase, 0)
    for use in run.kernel_uses():
        by_phase[use.phase] += use.count * use.flops
    return Flops(
        forward=micro * (by_phase[Phase.FORWARD] + by_phase[Phase.LOSS]),
        backward=micro * by_phase[Phase.BACKWARD],
        recompute=micro * by_phase[Phase.RECOMPUTE],
        optimizer=by_phase[Phase.OPTIMIZER],
    )


def predict_time(run: Simulated, training: TrainingSpec, gpu: GpuSpec, gpus: int) -> StepTime:
    """Seconds per optimizer step and the throughput of all GPUs (data parallel, no overhead)."""
    micro = training.gradient_accumulation_steps
    compute = memory = dispatch = 0.0
    for use in run.kernel_uses():
        times = use.count * (1 if use.phase == Phase.OPTIMIZER else micro)
        flops_s, bytes_s = _kernel_seconds(use, gpu)
        dispatch += times * DISPATCH_S
        compute += times * flops_s if flops_s >= bytes_s else 0.0
        memory += times * bytes_s if bytes_s > flops_s else 0.0
    step = max(compute + memory, dispatch)
    samples = training.micro_batch_size * micro * gpus
    tokens = samples * _tokens_per_sample(run, training)
    bounds = {"compute": compute, "memory bandwidth": memory, "kernel launches": 0.0}
    if dispatch > compute + memory:
        bounds["kernel launches"] = dispatch
    return StepTime(
        step_s=step,
        low_s=LOW * step,
        high_s=HIGH * step,
        tokens_per_s=tokens / step,
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
    return training.seq_len * facts["uses_source"] + training.target_len * facts["uses_target"]
