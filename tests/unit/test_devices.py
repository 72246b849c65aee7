"""The GPU of this machine, with NVML's answers played back."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from peftadvisor.cuda.devices import LiveGpu, live_gpu
from peftadvisor.errors import UsageError
from peftadvisor.units import MIB

A100 = ("NVIDIA A100-SXM4-40GB", 40960 * MIB, 624 * MIB)
T4 = ("Tesla T4", 15360 * MIB, 256 * MIB)


class FakeNVMLError(Exception):
    pass


class FakeNVML:
    """What of pynvml is used; raises on anything else by having nothing else."""

    NVMLError = FakeNVMLError
    NVML_DEVICE_MIG_ENABLE = 1
    nvmlMemory_v2 = 2  # noqa: N815

    def __init__(self, *cards: tuple[str, int, int], mig: int | None = None) -> None:
        self.cards, self.mig, self.open = cards, mig, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        return self.cards[int(uuid.removeprefix("GPU-"))]

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        return str(handle[0])

    def nvmlDeviceGetMigMode(self, handle: Any) -> tuple[int, int]:  # noqa: N802
        if self.mig is None:
            raise FakeNVMLError("not supported")
        return self.mig, self.mig

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int) -> Any:  # noqa: N802
        assert version == 2
        return SimpleNamespace(total=handle[1], reserved=handle[2])


def use(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_the_memory_is_what_the_driver_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNVML(A100, A100)
    use(nvml, monkeypatch)
    # 40960 MiB less the 624 MiB that the driver reserves.
    assert live_gpu() == LiveGpu(name=A100[0], usable_bytes=40336 * MIB)
    assert nvml.open == 0


@pytest.mark.parametrize(("visible", "name"), [("1", T4[0]), ("0,7,1", A100[0]), ("GPU-1", T4[0])])
def test_only_visible_gpus_count(visible: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeNVML(A100, T4), monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert live_gpu().name == name


@pytest.mark.parametrize(
    ("nvml", "visible", "message"),
    [
        (None, None, "needs nvidia-ml-py"),
        (FakeNVML(), None, "no GPU is visible"),
        (FakeNVML(A100), "", "no GPU is visible"),
        (FakeNVML(A100, T4), None, "several kinds here"),
        (FakeNVML(A100, mig=1), None, "split by MIG"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    nvml: Any, visible: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(nvml, monkeypatch)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UsageError, match=message):
        live_gpu()


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNVML()
    use(nvml, monkeypatch)

    def fail() -> None:
        raise FakeNVMLError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", fail)
    with pytest.raises(UsageError, match=r"no NVIDIA driver here \(Driver Not Loaded\); name it"):
        live_gpu()
