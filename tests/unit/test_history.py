"""The allocator's history, played back: the timeline, the snapshot, and what is lost without."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peftadvisor.profilers import history  # noqa: E402
from peftadvisor.profilers.devices import CudaBench  # noqa: E402
from peftadvisor.profilers.history import Source, recorded_history  # noqa: E402
from peftadvisor.profiles import Timeline  # noqa: E402
from peftadvisor.units import MIB  # noqa: E402
from tests.fake_cuda import FakeCuda, FakeMemory  # noqa: E402

OFF = {"enabled": None, "context": None, "stacks": "python", "max_entries": history.ENTRIES}
# 100 MiB are there before; then 30 MiB, 1000 B (two blocks of 512 B) and 512 B (one).
HELD = (130 * MIB, 130 * MIB + 1024, 100 * MIB + 1024, 100 * MIB + 1536)
TIMELINE = Timeline(unit="seconds", at=(0.0, 0.0001, 0.25, 1.0), held_bytes=HELD)


class Steps:
    """A workload that does nothing, or fails in its first backward pass."""

    def __init__(self, error: Exception | None = None) -> None:
        self.steps, self.error = 0, error

    def step(self, mark: Any) -> None:
        for phase in ("forward", "backward", "optimizer"):
            with mark(phase):
                if self.error and phase == "backward":
                    raise self.error
        self.steps += 1


def bench(memory: Any, snapshot: Path | None = None) -> CudaBench:
    made = CudaBench(0, FakeCuda(memory=memory), "cpu", snapshot and str(snapshot))
    made.fresh()
    made.fresh()  # as when times were taken before; the peaks are counted from the second
    return made


def held(memory: Any, snapshot: Path | None = None, error: Exception | None = None) -> Any:
    return bench(memory, snapshot).held(Steps(error), 2)  # type: ignore[arg-type]


def test_the_timeline() -> None:
    """Segments and completed frees change nothing that is allocated."""
    memory = FakeMemory()
    assert held(memory).timeline == TIMELINE
    assert memory.asked == [{**OFF, "enabled": "all"}, OFF]


def test_the_timeline_keeps_every_peak() -> None:
    """1000 allocations that are freed at once, the highest of them 2 MiB."""
    sizes = [MIB] * 1000
    sizes[700] = 2 * MIB
    pairs = [(("alloc", size, n), ("free_requested", size, n)) for n, size in enumerate(sizes)]
    made = held(FakeMemory([event for pair in pairs for event in pair])).timeline
    # 2000 events are 500 stretches of four, each with a peak.
    assert len(made.at) == 500
    assert sorted(set(made.held_bytes)) == [101 * MIB, 102 * MIB]
    assert made.at[made.held_bytes.index(102 * MIB)] == pytest.approx(700e-6)


def test_each_device_has_its_own_history() -> None:
    with recorded_history(Source(cuda=FakeCuda(), index=1)) as made:
        pass
    assert made.timeline == Timeline(unit="seconds", at=(), held_bytes=())


def test_the_snapshot(tmp_path: Path) -> None:
    """What torch tells, as it is, with the stacks of allocations."""
    memory = FakeMemory()
    made = held(memory, tmp_path / "run.pickle")
    assert made.timeline == TIMELINE
    assert made.missing == {}
    assert memory.asked == [{**OFF, "enabled": "all", "context": "alloc"}, OFF]
    state = pickle.loads((tmp_path / "run.pickle").read_bytes())
    assert [len(trace) for trace in state["device_traces"]] == [6, 0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("2 GiB"), RuntimeError("CUDA error")])
def test_switched_off_after_a_run_that_breaks(error: Exception, tmp_path: Path) -> None:
    """Its error is what comes out, and the snapshot is there to see why."""
    memory = FakeMemory()
    with pytest.raises(type(error), match=str(error)):
        held(memory, tmp_path / "run.pickle", error)
    assert memory.asked[-1] == OFF
    assert (tmp_path / "run.pickle").stat().st_size > 0


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (None, "AttributeError: 'NoneType' object has no attribute '_record_memory_history'"),
        (SimpleNamespace(), "AttributeError: "),
        (
            FakeMemory(refuses=("_record_memory_history",)),
            "RuntimeError: cudaMallocAsync does not yet support recordHistory",
        ),
        (FakeMemory(refuses=("_snapshot",)), "RuntimeError: no snapshot of this allocator"),
        (FakeMemory([("alloc", None, 0)]), "TypeError: "),  # type: ignore[list-item]
    ],
    ids=["no module", "no function", "refused", "no snapshot", "another format"],
)
def test_what_torch_refuses_costs_the_timeline_alone(memory: Any, why: str) -> None:
    made = held(memory)
    assert made.timeline is None
    assert list(made.missing) == ["timeline"]
    assert made.missing["timeline"].startswith(why)
    assert made.peak_bytes == 270 * MIB
    assert not getattr(memory, "on", False)


def test_a_history_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest events may be lost, so nothing is known of the bytes; the viewer takes it."""
    monkeypatch.setattr(history, "ENTRIES", 6)
    made = held(FakeMemory(), tmp_path / "run.pickle")
    assert made.timeline is None
    assert made.missing == {"timeline": "the allocator made 6 events or more"}
    assert (tmp_path / "run.pickle").exists()


def test_a_snapshot_that_cannot_be_written(tmp_path: Path) -> None:
    made = held(FakeMemory(), tmp_path)
    assert made.timeline == TIMELINE
    assert list(made.missing) == ["snapshot"]
    assert "Is a directory" in made.missing["snapshot"]


def test_without_history_there_is_no_snapshot(tmp_path: Path) -> None:
    made = held(FakeMemory(refuses=("_snapshot",)), tmp_path / "run.pickle")
    assert set(made.missing) == {"timeline", "snapshot"}
    assert not (tmp_path / "run.pickle").exists()
