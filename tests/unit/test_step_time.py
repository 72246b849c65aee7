"""Step time of made-up kernels on a made-up card, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peftadvisor.cost_model.kernel_classes import Class, tabulate
from peftadvisor.cost_model.matmul import matmul_seconds
from peftadvisor.cost_model.probed import IN_STEP
from peftadvisor.cost_model.rates import device_rates
from peftadvisor.cost_model.time import step_parts, step_seconds
from peftadvisor.data.calibrations import Head, Probe, calibration_path, new_calibration
from peftadvisor.data.gpus import find_gpu, load_gpus
from peftadvisor.data.rates import DeviceRates, bundled_rates, fitted_gpus
from peftadvisor.data.sources import describe_sources
from peftadvisor.data.tables import catalog_path, read_table
from peftadvisor.simulator.recording import KernelUse
from peftadvisor.simulator.trace import Phase
from peftadvisor.specs import GpuSpec, TrainingSpec

# One FLOP is a nanosecond's thousandth, one byte a nanosecond: 1e12 FLOP/s, 1e9 B/s.
GPU: GpuSpec = replace(
    find_gpu("l40s"),
    memory_bandwidth_bytes_per_s=10**9,
    peak_flops_per_s={"bf16": 1e12, "fp32": 1e11},
    achievable={"default": 1.0},
    multiprocessor_count=100,
)
RATES = DeviceRates(
    matmul_share=1.0,
    fp32_matmul_share=1.0,
    attention_share=0.5,
    bandwidth_share=1.0,
    optimizer_share=0.5,
    dequantize_share=0.25,
    cache_gain=2.0,
    cache_bytes=0,
    kernel_s=0.0,
    dispatch_s=0.0,
    low=0.9,
    high=1.2,
    basis="spec",
    source="made up",
)
TRAINING = TrainingSpec()


def use(
    name: str,
    phase: Phase = Phase.FORWARD,
    *,
    count: int = 1,
    flops: int = 0,
    touched: int = 0,
    shapes: tuple[int, ...] = (),
) -> KernelUse:
    return KernelUse(name, phase, count, flops, touched, shapes)


def product(m: int, n: int, k: int, *, sms: int = 100) -> float:
    dims = np.array([[1.0], [m], [n], [k]])
    return float(matmul_seconds(dims, np.array([1e12]), sms, 1e30)[0])


def test_whole_waves_take_no_longer_than_their_flops() -> None:
    # 1280 x 2560 is 5 x 20 tiles of 256 x 128: one wave of 100 multiprocessors.
    assert product(1280, 2560, 1024) == pytest.approx(2 * 1280 * 2560 * 1024 / 1e12)


def test_a_tile_more_takes_a_wave_more() -> None:
    # One row more makes 6 x 20 = 120 tiles: two waves of the largest tile, 2.0 of a wave; with
    # 128 x 128 tiles 11 x 20 = 220, 3 waves of half the work at 0.95: 1.58; with 128 x 64 tiles
    # 11 x 40 = 440, 5 waves of a quarter at 0.8: 1.5625; with 64 x 128 tiles 21 x 20 = 420 also.
    # Splitting k in 4: 480 of 256 x 128, 5 waves of a quarter of the depth at 1.0: 1.25; in 8:
    # 960, 10 waves of an eighth: 1.25; in 16: 1920, 20 waves of a sixteenth: 1.25; in 32 (depth
    # 32, the least): 3840, 39 waves: 1.21875. 128 x 256: 11 x 10 = 110; in 32: 3520, 36: 1.125.
    # 128 x 128 in 32: 7040, 71 waves of 1/64 at 0.95: 1.1678.
    wave = 2 * 1280 * 2560 * 1024 / 1e12
    assert product(1281, 2560, 1024) == pytest.approx(1.125 * wave)


def test_partial_sums_cost_bandwidth() -> None:
    # One tile of 256 x 128 x 1024 on one of 100 multiprocessors. Split in 32, 32 of them work a
    # 32nd each; each writes and reads 4 bytes an element: 8 * 256 * 128 * 32 B at 1e9 B/s.
    dims = np.array([[1.0], [256.0], [128.0], [1024.0]])
    plain = 100 * 2 * 256 * 128 * 1024 / 1e12
    assert matmul_seconds(dims, np.array([1e12]), 100, 1e9)[0] < plain
    assert matmul_seconds(dims, np.array([1e12]), 100, 1.0)[0] <= plain * 1.01


@pytest.mark.parametrize(
    ("touched", "seconds", "bound"),
    [
        # 1e9 FLOPs at 1e12 / s: 1 ms. Bytes at 1e9 / s: far below, equal (2 ** 0.25), far above.
        (10**3, 1e-3, "compute"),
        (10**6, 1e-3 * 2**0.25, "compute"),
        (10**8, 0.1, "memory bandwidth"),
    ],
)
def test_roofline_crossing(touched: int, seconds: float, bound: str) -> None:
    # The cube of 10 ** 9 FLOPs would fill tiles badly; half the peak for attention: 2 x 10 ** 9.
    uses = [use("_scaled_dot_product_flash_attention.bfloat16", flops=10**9 // 2, touched=touched)]
    parts = step_parts(uses, TRAINING, GPU, RATES)
    assert parts.step_s == pytest.approx(seconds, rel=1e-6)
    assert parts.bound == bound
    assert parts.by_class["attention"] == parts.step_s


def test_attention_backward_and_the_efficient_kernel_are_slower() -> None:
    names = (
        "_scaled_dot_product_flash_attention.bfloat16",
        "_scaled_dot_product_flash_attention_backward.bfloat16",
        "_scaled_dot_product_efficient_attention.bfloat16",
    )
    flash, backward, efficient = (
        step_parts([use(name, flops=3 * 10**9)], TRAINING, GPU, RATES).step_s for name in names
    )
    assert flash == pytest.approx(6e-3)  # half of 1e12
    assert backward == pytest.approx(8e-3)  # three quarters of that
    assert efficient == pytest.approx(18e-3)  # a third of it


def test_classes_have_their_own_bandwidth() -> None:
    # 1 MB each at 1e9 B/s: elementwise 1 ms; 4-bit weights at a quarter 4 ms; the update at a half
    # 2 ms, and in-place lists are read and written, of which the reading alone was recorded: 4 ms.
    uses = [
        use("mul.float32", touched=10**6),
        use("dequantize.bfloat16", Phase.BACKWARD, touched=10**6),
        use("_foreach_sqrt.float32", Phase.OPTIMIZER, touched=10**6),
        use("_foreach_mul_.float32", Phase.OPTIMIZER, touched=10**6),
    ]
    parts = step_parts(uses, replace(TRAINING, gradient_accumulation_steps=3), GPU, RATES)
    assert parts.by_class == pytest.approx(
        {
            "matmul": 0.0,
            "attention": 0.0,
            "elementwise": 3e-3,
            "dequantization": 12e-3,
            "optimizer": 6e-3,
            "launches": 0.0,
        }
    )
    assert parts.step_s == pytest.approx(21e-3)


def test_small_kernels_find_their_bytes_in_the_cache() -> None:
    # 1 MB of a cache of 4 MB: three quarters at twice the speed, 0.25 + 0.375 ms.
    cached = replace(RATES, cache_bytes=4 * 10**6)
    assert step_parts([use("mul.float32", touched=10**6)], TRAINING, GPU, cached).step_s == (
        pytest.approx(0.625e-3)
    )
    assert step_parts([use("mul.float32", touched=4 * 10**6)], TRAINING, GPU, cached).step_s == (
        pytest.approx(4e-3)
    )


def test_a_step_of_tiny_kernels_waits_for_the_host() -> None:
    # Forward: 1,000 operators, 10 us each: 10 ms of the host, 1 ms of the card. Backward: 1,000 at
    # 7 us: the host ends at 17 ms, the card (after 10 ms, 2 ms of work) would have at 12 ms.
    uses = [
        use("mul.float32", count=1000, touched=10**3),
        use("mul.float32", Phase.BACKWARD, count=1000, touched=2 * 10**3),
    ]
    parts = step_parts(uses, TRAINING, GPU, replace(RATES, dispatch_s=1e-5))
    assert parts.step_s == pytest.approx(17e-3)
    assert parts.by_class["launches"] == pytest.approx(14e-3)
    assert parts.bound == "kernel launches"


def test_a_slow_backward_hides_what_the_host_takes_for_it() -> None:
    # Forward 10 ms of the host as above, backward 20 ms of the card against 7 ms of the host.
    uses = [
        use("mul.float32", count=1000, touched=10**3),
        use("mul.float32", Phase.BACKWARD, count=1000, touched=2 * 10**4),
    ]
    parts = step_parts(uses, TRAINING, GPU, replace(RATES, dispatch_s=1e-5))
    assert parts.step_s == pytest.approx(30e-3)
    assert parts.bound == "memory bandwidth"


def test_starts_of_kernels_are_launches() -> None:
    uses = [use("mul.float32", count=100, touched=10**3)]
    parts = step_parts(uses, TRAINING, GPU, replace(RATES, kernel_s=2e-6))
    assert parts.by_class["launches"] == pytest.approx(2e-4)
    assert parts.by_class["elementwise"] == pytest.approx(1e-4)


def test_shapes_of_products() -> None:
    uses = [
        use("mm.bfloat16", flops=2 * 3 * 5 * 7, shapes=(3, 5, 5, 7)),
        use("bmm.float32", flops=2 * 2 * 3 * 5 * 7, shapes=(2, 3, 5, 2, 5, 7)),
        use("convolution.bfloat16", flops=2 * 1000, shapes=(1, 1, 1, 1, 1, 1, 1, 1)),
        use("mul.float32"),
        use("mm.float32", Phase.OPTIMIZER, flops=2, shapes=(1, 1, 1, 1)),
    ]
    kernels = tabulate(uses)
    expected = [[1, 3, 7, 5], [2, 3, 7, 5], [1, 10, 10, 10], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert kernels.dims.T.tolist() == [pytest.approx(row) for row in expected]
    assert kernels.kind.tolist() == [
        Class.MATMUL,
        Class.MATMUL,
        Class.MATMUL,
        Class.ELEMENTWISE,
        Class.OPTIMIZER,
    ]


def test_nothing_takes_no_time() -> None:
    assert step_parts([], TRAINING, GPU, RATES).step_s == 0.0


def test_bundled_constants() -> None:
    gpus = load_gpus()
    assert set(fitted_gpus()) <= set(gpus)
    for gpu_id in gpus:
        rates = bundled_rates(gpu_id)
        assert 0 < rates.low < 1 < rates.high
        assert rates.basis == ("fitted" if gpu_id in fitted_gpus() else "spec")
    assert bundled_rates("t4").high > bundled_rates("l40s").high
    assert bundled_rates("t4").source.startswith("uncalibrated")
    for row in read_table(catalog_path("gpu_rates.csv"), ("source",)):
        assert describe_sources(row.text("source"))


PROBES = (
    # 256 x 128 x 1024 would leave 141 of 142 multiprocessors idle: too small to be asked.
    Probe(kind="matmul", operator="linear", shape=(256, 1024, 128), dtype="bf16", seconds=1.0),
    # 142 tiles of 256 x 128, one wave: what the spec says takes 2 m n k / 362e12 s, twice that.
    Probe(
        kind="matmul",
        operator="linear",
        shape=(256 * 142, 4096, 128),
        dtype="bf16",
        seconds=2 * 2 * 256 * 142 * 128 * 4096 / 362e12,
        flops=2 * 256 * 142 * 128 * 4096,
    ),
    Probe(kind="copy", operator="copy_", seconds=1e-5, moved_bytes=2),
    # half of the bandwidth, after a start of 10 us
    Probe(kind="copy", operator="copy_", seconds=1e-5 + 2 * 864e6 / 864e9, moved_bytes=864 * 10**6),
    Probe(kind="dispatch", operator="add", seconds=5e-6),
)


def test_a_calibration_on_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    gpu = find_gpu("l40s")
    uses = [use("mul.float32", touched=10**9)]
    before = step_seconds(uses, TRAINING, gpu)["elementwise"]
    head = Head(
        device="NVIDIA L40S",
        device_kind="cuda",
        versions={"torch": "2.13.0"},
        date="2026-11-24T10:15:00+00:00",
    )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other"))
    with new_calibration(calibration_path(head), head) as file:
        for probe in PROBES:
            file.add(probe)
    rates, base = device_rates(gpu), bundled_rates("l40s")
    assert rates.basis == "calibration"
    assert "2026-11-24" in rates.source
    # Half of the spec, over the 0.8 that large products are taken to reach.
    assert rates.matmul_share == pytest.approx(IN_STEP * 0.5 / gpu.achievable["default"], rel=0.02)
    assert rates.bandwidth_share == pytest.approx(0.5, rel=1e-3)
    assert rates.kernel_s == pytest.approx(1e-5)
    assert rates.dispatch_s == 5e-6
    assert rates.fp32_matmul_share == base.fp32_matmul_share
    after = step_seconds(uses, TRAINING, gpu)["elementwise"]
    assert after / before == pytest.approx(base.bandwidth_share / rates.bandwidth_share)
    assert device_rates(find_gpu("a40")).basis == "spec"
