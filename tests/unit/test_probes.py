"""Probes: their sizes, how shapes shrink, and the probing of a card that is played back."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peftadvisor.cuda.readings import Card  # noqa: E402
from peftadvisor.data.calibrations import (  # noqa: E402
    Calibration,
    Head,
    Probe,
    new_calibration,
    read_calibration,
)
from peftadvisor.profilers.calibrating import calibrate, run_probes  # noqa: E402
from peftadvisor.profilers.devices import CpuBench, CudaBench  # noqa: E402
from peftadvisor.profilers.kernels import DTYPES, KERNELS, Kernel  # noqa: E402
from peftadvisor.profilers.probes import (  # noqa: E402
    NoRoomError,
    Pace,
    Probing,
    context,
    dispatch,
    fitting,
    kernel,
    launch,
    workspaces,
)
from peftadvisor.profilers.stopwatch import CUDA_SWEEP_BYTES, Site  # noqa: E402
from peftadvisor.units import MIB  # noqa: E402
from tests.fake_cuda import FakeCuda, FakeNvml  # noqa: E402

HEAD = Head(device="card", device_kind="cuda", versions={}, date="2026-11-24T10:15:00+00:00")
SOME = Probe(kind="context", operator="created", held_bytes=1)
BY_NAME = {(k.kind, k.operator): k for k in KERNELS}
MATMUL = replace(BY_NAME["matmul", "linear"], shapes=((8, 16, 4),))
SHAPES = {1: (64,), 2: (8, 64), 3: (8, 16, 4), 4: (2, 2, 16, 8)}


@pytest.mark.parametrize(
    ("name", "shape", "flops", "moved"),
    [
        # 2 · 3 · 5 · 7; 2 bytes of 3·5 + 5·7 + 3·7
        (("matmul", "linear"), (3, 5, 7), 210, 142),
        # ten elements of 4 bytes read and written
        (("copy", "copy_"), (10,), 0, 80),
        # two read, one written, 6 elements
        (("elementwise", "add"), (2, 3), 0, 36),
        (("elementwise", "gelu"), (2, 3), 0, 24),
        # 2 bytes read, 4 written, 6 elements
        (("elementwise", "to fp32"), (2, 3), 0, 36),
        # 6 elements read, 2 written
        (("reduction", "sum"), (2, 3), 0, 16),
        (("reduction", "layer_norm"), (2, 3), 0, 24),
        (("reduction", "log_softmax"), (2, 3), 0, 24),
        # 2 rows of 3 elements read and written, 2 tokens of 8 bytes; the vocabulary is not read
        (("embedding", "embedding"), (2, 100, 3), 0, 40),
        # two products of 2 · 2·3·(5·5)·4 = 1200; 4 tensors of 2·3·5·4 = 120 elements
        (("attention_forward", "scaled_dot_product_attention"), (2, 3, 5, 4), 2400, 960),
        # five products; 8 tensors
        (("attention_backward", "scaled_dot_product_attention"), (2, 3, 5, 4), 6000, 1920),
        # 128 weights: 64 bytes packed, 2 scales of 4 bytes, 256 bytes written
        (("dequantize_nf4", "dequantize_4bit"), (2, 64), 0, 328),
    ],
)
def test_sizes_by_formula(
    name: tuple[str, str], shape: tuple[int, ...], flops: int, moved: int
) -> None:
    found = BY_NAME[name]
    size = DTYPES["fp32" if name[0] == "copy" else "bf16"].itemsize
    assert found.flops(shape) == flops
    assert found.moved(shape, size) == moved


def test_the_table_is_that_of_the_formulas() -> None:
    assert len(BY_NAME) == len(KERNELS) == 12
    assert 20 <= len(set(BY_NAME["matmul", "linear"].shapes)) <= 30


def fake_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    functional = SimpleNamespace(
        quantize_4bit=lambda weight, blocksize, quant_type: (weight, (blocksize, quant_type)),
        dequantize_4bit=lambda packed, state: packed.clone(),
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(functional=functional))


@pytest.mark.parametrize("found", KERNELS, ids=lambda k: f"{k.kind}-{k.operator}")
def test_every_kernel_runs_at_every_dtype(found: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_bitsandbytes(monkeypatch)
    shape = SHAPES[len(found.shapes[0])]
    for dtype in found.dtypes:
        result = found.prepare(shape, DTYPES[dtype], "cpu")()
        first = result[0] if isinstance(result, tuple) else result
        assert first.dtype == (torch.float32 if found.operator == "to fp32" else DTYPES[dtype])
        assert first.isfinite().all()


def test_products_are_counted_as_torch_counts_them() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    forward = BY_NAME["attention_forward", "scaled_dot_product_attention"]
    for found, shape in ((MATMUL, (8, 16, 4)), (forward, (2, 2, 16, 8))):
        call = found.prepare(shape, torch.float32, "cpu")
        # the plain kernel: torch's counter does not know the fused one of the CPU
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == found.flops(shape)


def paced(site: Site, pace: Pace) -> Probing:
    probing = Probing(site)
    probing.pace = lambda dtype: pace  # type: ignore[method-assign]
    return probing


def roomy(free_bytes: int) -> Site:
    cuda = SimpleNamespace(mem_get_info=lambda index: (free_bytes, free_bytes))
    return Site(bench=CpuBench(), cuda=cuda)


def test_shapes_are_halved_until_they_fit() -> None:
    wanted = (4096, 512, 512)
    fast = Pace(flops_per_s=1e15, filled_bytes_per_s=1e15)
    assert fitting(paced(roomy(10**12), fast), MATMUL, "bf16", wanted, 1.0) == wanted
    # five calls of 2 · m · 512 · 512 FLOPs at 1e9 in a second: m up to 381
    slow = Pace(flops_per_s=1e9, filled_bytes_per_s=1e15)
    assert fitting(paced(roomy(10**12), slow), MATMUL, "bf16", wanted, 1.0) == (256, 512, 512)
    # 2 · (1024 m + 512²) bytes in a sixth of 12 MiB: m up to 768
    assert fitting(paced(roomy(12 * MIB), fast), MATMUL, "bf16", wanted, 1.0) == (512, 512, 512)
    with pytest.raises(NoRoomError):
        fitting(paced(roomy(10**12), slow), MATMUL, "bf16", wanted, 1e-6)
    attention = BY_NAME["attention_forward", "scaled_dot_product_attention"]
    # 4 · 2 · 16 · s² · 64 FLOPs five times at 1e9 in a second: s up to 156
    assert fitting(paced(roomy(10**12), slow), attention, "bf16", (2, 16, 512, 64), 1.0)[2] == 128


class Memory(FakeCuda):
    """The fake card with a memory: each look at what is allocated finds more."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated = itertools.count(0, 8 * MIB)
        self.sweep = 0

    def memory_reserved(self, index: int) -> int:
        return 100 * MIB

    def memory_allocated(self, index: int) -> int:
        return next(self.allocated)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 64 * MIB, 80 * MIB

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(L2_cache_size=40 * MIB)


def fake_site(cuda: FakeCuda) -> Site:
    """A card whose events are ten milliseconds apart, beside a host whose clock is too."""
    card = Card(FakeNvml(), 0)
    before = card.read().used_bytes
    ticks = itertools.count(0, 10)
    return Site(
        bench=CudaBench(0, cuda, where="cpu"),
        cuda=cuda,
        card=card,
        used_before_bytes=before,
        now=lambda: next(ticks) / 1000,
    )


def probed(site: Site, path: Path, *probes: Any, seconds: float = 60.0) -> Calibration:
    said: list[str] = []
    with new_calibration(path, HEAD) as file:
        run_probes(probes, site, seconds, file, said.append)
    return read_calibration(path)


def test_a_card_is_timed_by_its_events(tmp_path: Path) -> None:
    site = fake_site(Memory())
    assert site.sweep_bytes() == 8 * MIB  # an eighth of what is free
    work = partial(kernel, of=MATMUL, dtype="fp32", wanted=(64, 16, 4))
    probes = (
        ("context", context),
        ("workspace", workspaces),
        ("launch", launch),
        ("dispatch", dispatch),
        ("matmul", work),
        ("matmul", work),
    )
    made = probed(site, tmp_path / "c.jsonl", *probes)
    assert (made.skipped, made.complete) == ({}, True)
    kinds = [probe.kind for probe in made.probes]
    # the second matmul is the first over again
    assert kinds == ["context", *["workspace"] * 3, "launch", *["dispatch"] * 8, "matmul"]
    # the driver tells 900 MiB before and 1300 after, of which torch holds 100
    assert made.probes[0].held_bytes == 300 * MIB
    assert {p.held_bytes for p in made.probes if p.kind == "workspace"} == {8 * MIB}
    # one tick of the host's clock: around one launch, around two hundred calls handed over
    assert made.probes[4].seconds == pytest.approx(0.010)
    assert made.probes[5].seconds == pytest.approx(0.010 / 200)
    last = made.probes[-1]
    assert (last.seconds, last.low_s, last.high_s, last.repeats) == (0.010, 0.010, 0.010, 30)
    assert (last.shape, last.dtype, last.flops) == ((64, 16, 4), "fp32", 8192)


def test_a_large_card_is_swept_by_more_than_its_cache() -> None:
    cuda = Memory()
    cuda.mem_get_info = lambda index: (10**12, 10**12)  # type: ignore[method-assign]
    assert fake_site(cuda).sweep_bytes() == CUDA_SWEEP_BYTES
    cuda.get_device_properties = lambda index: SimpleNamespace(  # type: ignore[method-assign]
        L2_cache_size=100 * MIB
    )
    assert fake_site(cuda).sweep_bytes() == 400 * MIB


def raising(error: Exception, probing: Probing, seconds: float) -> Iterator[Probe]:
    yield SOME
    raise error


def test_what_cannot_be_measured_has_a_reason(tmp_path: Path) -> None:
    site = Site(bench=CpuBench())
    nothing = ModuleNotFoundError("No module named 'x'", name="bitsandbytes")
    made = probed(
        site,
        tmp_path / "c.jsonl",
        ("context", context),
        ("workspace", workspaces),
        ("nf4", partial(raising, nothing)),
        ("nf4", partial(raising, nothing)),  # not asked again
        ("large", partial(raising, torch.OutOfMemoryError("2 GiB\nwanted"))),
        ("large", partial(raising, torch.OutOfMemoryError("1 GiB wanted"))),  # asked again
        ("odd, add, fp16", partial(raising, RuntimeError(""))),
        ("slow, add, fp16", partial(raising, NoRoomError())),
        ("slow, add, fp32", partial(raising, NoRoomError())),
    )
    assert made.skipped == {
        "context": "there is none on the CPU",
        "workspace": "there is none on the CPU",
        "nf4": "bitsandbytes is not installed",
        "large": "1 GiB wanted",
        "odd, add, fp16": "RuntimeError",
        "for want of time or memory": "2 of slow; give more --seconds",
    }
    assert len(made.probes) == 6
    late = probed(site, tmp_path / "d.jsonl", ("launch", launch), seconds=-1.0)
    assert late.skipped == {"for want of time or memory": "1 of launch; give more --seconds"}


def test_a_device_that_breaks_ends_the_work_and_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    broken = partial(raising, torch.AcceleratorError("illegal memory access"))
    with pytest.raises(torch.AcceleratorError):
        probed(Site(bench=CpuBench()), path, ("broken", broken), ("launch", launch))
    assert read_calibration(path) == Calibration(head=HEAD, probes=(SOME,), complete=False)


def test_a_child_that_nobody_hears_leaves_quietly(tmp_path: Path) -> None:
    def gone(text: str) -> None:
        raise BrokenPipeError

    path = tmp_path / "c.jsonl"
    with pytest.raises(SystemExit):
        calibrate("cpu", 2.0, str(path), say=gone)
    assert not read_calibration(path).complete
