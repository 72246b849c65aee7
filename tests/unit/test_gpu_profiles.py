"""Profiles of a card, with allocator, events and driver played back."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import ChildDiedError, in_child
from peftadvisor.profilers.conformance import MODELS
from peftadvisor.profilers.devices import CudaBench, index_of, open_bench
from peftadvisor.profilers.profiling import measured_profile
from peftadvisor.profilers.recorded import recorded, run_of
from peftadvisor.profilers.rows import to_csv
from peftadvisor.profilers.store import open_store
from peftadvisor.profiles import Profile
from peftadvisor.specs import MethodSpec, TrainingSpec
from peftadvisor.units import MIB
from tests.fake_cuda import (
    FakeCuda,
    FakeMemory,
    FakeNvml,
    fake_bench,
    full_bench,
    lost_bench,
    on_fake_card,
)
from tests.parity.tiny import spec

TRAINING = TrainingSpec(micro_batch_size=2, seq_len=16, dtype="fp32")
RUN = (spec(MODELS["llama"]), MethodSpec(name="lora"), TRAINING)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No thread, no child, no hook on any module after a test."""
    import torch

    yield
    assert [t.name for t in threading.enumerate() if t.name == "sampler"] == []
    assert multiprocessing.active_children() == []
    spawned = [c.cmdline() for c in psutil.Process().children()]
    assert not [line for line in spawned if "spawn_main" in " ".join(line)]
    modules = [o for o in gc.get_objects() if issubclass(type(o), torch.nn.Module)]
    assert not [m for m in modules if m._forward_pre_hooks or m._backward_hooks]


def use(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def measured(**options: Any) -> Profile:
    return measured_profile(*RUN, "cuda:0", steps=3, **{"bench_of": fake_bench, **options})


def test_what_the_card_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    use(nvml, monkeypatch)
    made = measured()
    assert made.device == "NVIDIA A100-SXM4-40GB"
    assert made.provenance.versions["driver"] == "570.86.15"
    memory, time, use_ = made.memory, made.time, made.device_use
    # The largest of two steps: 270 MiB in the second backward pass, 320 MiB reserved then.
    assert (memory.allocated_peak_bytes, memory.peak_phase) == (270 * MIB, "backward")
    assert memory.reserved_peak_bytes == 320 * MIB
    assert memory.phase_peak_bytes == {
        "load": 100 * MIB,
        "forward": 190 * MIB,
        "backward": 270 * MIB,
        "optimizer": 160 * MIB,
    }
    assert sum(memory.owner_bytes.values()) == 270 * MIB
    # Eight events a step, 10 ms apart: step start, three phases' starts and ends, step end.
    assert time is not None
    assert time.step_s == pytest.approx(0.07)
    assert time.phase_s == pytest.approx({"forward": 0.01, "backward": 0.01, "optimizer": 0.01})
    assert time.mfu == pytest.approx(sum(made.phase_flops.values()) / 0.07 / 19.5e12)
    assert use_ is not None
    assert use_.baseline_bytes == 900 * MIB
    assert use_.peak_bytes in {(most - 900) * MIB for most in (1300, 1350)}
    assert (use_.mean_power_w, use_.median_sm_clock_hz) == (250.0, 1_410_000_000)
    assert use_.mean_utilization == pytest.approx(0.8)
    # 250 W for 70 ms are 17.5 J for the step's 2 × 16 tokens.
    assert use_.joules_per_step == pytest.approx(17.5)
    assert use_.joules_per_token == pytest.approx(17.5 / 32)
    assert use_.missing == {}
    assert nvml.open == 0
    assert made.timeline is not None
    # 30 MiB on the 100 MiB of before, in the first of four changes.
    assert made.timeline.held_bytes[0] == 130 * MIB
    assert made.timeline.at == (0.0, 0.0001, 0.25, 1.0)


@pytest.mark.parametrize(
    ("nvml", "what", "why"),
    [
        (None, "readings", "needs nvidia-ml-py"),
        (FakeNvml(without=("nvmlDeviceGetMemoryInfo",)), "memory", "driver is too old"),
        (FakeNvml(without=("nvmlDeviceGetPowerUsage",)), "power", "driver is too old"),
        (FakeNvml(mig=1), "readings", "split by MIG"),
        (FakeNvml(lost_at=2), "readings", "the card was lost"),
    ],
    ids=["no NVML", "no memory", "no power", "MIG", "lost"],
)
def test_what_the_driver_does_not_tell(
    nvml: Any, what: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator's figures are there all the same, and the reason is told."""
    use(nvml, monkeypatch)
    made = measured()
    assert made.memory.reserved_peak_bytes == 320 * MIB
    assert made.device_use is not None
    assert why in made.device_use.missing[what]


def test_what_torch_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """No history: the reason stands beside those of the driver, and all else is there."""
    use(FakeNvml(), monkeypatch)
    cuda = FakeCuda(memory=FakeMemory(refuses=("_record_memory_history",)))
    made = measured(bench_of=lambda _: CudaBench(0, cuda, where="cpu", snapshot="/none/x"))
    assert made.timeline is None
    assert made.memory.allocated_peak_bytes == 270 * MIB
    assert made.device_use is not None
    why = "RuntimeError: cudaMallocAsync does not yet support recordHistory"
    assert made.device_use.missing == {"timeline": why, "snapshot": why}
    assert made.device_use.mean_power_w == 250.0


@pytest.mark.parametrize(
    ("bench_of", "status"), [(full_bench, "out of memory"), (lost_bench, "failed")]
)
def test_a_run_that_breaks_is_a_record(bench_of: Any, status: str, tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")

    def work(say: Any) -> Any:
        return in_child(on_fake_card, *RUN, "cuda:0", bench_of=bench_of, steps=1, say=say)

    with pytest.raises(ChildDiedError):
        recorded(store, run_of("measure", *RUN, "cuda:0"), work, lambda _: None)
    with open_store(store) as kept:
        (record,) = kept.records()
    assert (record.status, record.reached) == (status, "recording allocations")
    assert record.profile is None
    assert f",{status}," in to_csv([record])


def test_a_record_of_a_card_as_a_row(tmp_path: Path) -> None:
    store = str(tmp_path / "runs.db")

    def work(say: Any) -> Any:
        return in_child(on_fake_card, *RUN, "cuda:0", steps=1, say=say)

    recorded(store, run_of("measure", *RUN, "cuda:0"), work, lambda _: None)
    with open_store(store) as kept:
        head, row = to_csv(kept.records()).splitlines()
    cells = row.split(",")
    assert str(320 * MIB) in cells
    assert "NVIDIA A100-SXM4-40GB" in cells
    assert "peak_reserved_bytes" in head


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "a100-40g", ""])
def test_no_such_device(name: str) -> None:
    with pytest.raises(UsageError, match="--device takes cpu or cuda:N"):
        index_of(name)


def test_no_card_here() -> None:
    with pytest.raises(UsageError, match="measure on the cpu"):
        open_bench("cuda:7")
