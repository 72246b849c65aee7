"""What the check before training reads: data, cards that are not there, their drivers."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import peftadvisor  # noqa: E402
from peftadvisor.cuda.devices import free_bytes  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.integrations import forecast as forecasting  # noqa: E402
from peftadvisor.integrations.forecast import Where, forecast  # noqa: E402
from peftadvisor.integrations.preflight import (  # noqa: E402
    PreflightCallback,
    preflight,
)
from peftadvisor.profilers.checking import Measured  # noqa: E402
from peftadvisor.profilers.live import Parts  # noqa: E402
from peftadvisor.profilers.room import Room, room_of  # noqa: E402
from peftadvisor.profilers.seen import Lengths, largest  # noqa: E402
from peftadvisor.units import GIB, MIB  # noqa: E402
from tests.live_runs import (  # noqa: E402
    Texts,
    arguments,
    collate,
    llama,
)

pytestmark = pytest.mark.filterwarnings("ignore")


# Data.


def loader(data: Any) -> Any:
    return torch.utils.data.DataLoader(data, batch_size=4, collate_fn=collate)


def test_the_longest_sample_is_found_and_no_batch_is_taken(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    found = largest(args, loader(Texts([16, 48, 32, 16, 16])), Lengths())
    assert (found.rows, found.seq_len, found.target_len, found.padded) == (4, 48, 48, True)
    assert (found.how, found.surely) == ("longest of all 5 samples", True)
    few = largest(args, loader(Texts([16, 16])), Lengths())
    assert (few.rows, few.padded) == (2, False)


def test_max_length_stands_for_samples_that_were_not_seen(tmp_path: Path) -> None:
    many = loader(Texts([8] * 1000))
    found = largest(arguments(tmp_path), many, Lengths())
    assert (found.seq_len, found.how) == (8, "longest of 256 of 1000 samples")
    args = SimpleNamespace(max_length=32, train_batch_size=4)
    assert largest(args, many, Lengths()).how == "max_length of the arguments"
    assert largest(args, many, Lengths()).seq_len == 32


def test_data_that_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    broken_data = torch.utils.data.DataLoader(Texts([4]), collate_fn=lambda _: 1 / 0)
    with pytest.raises(UsageError, match=r"\(ZeroDivisionError: .*\); pass seq_len="):
        largest(arguments(tmp_path), broken_data, Lengths())


def test_a_stream_is_not_read(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            raise AssertionError

    streamed = torch.utils.data.DataLoader(Stream(), batch_size=4)
    with pytest.raises(UsageError, match="the data is a stream"):
        largest(arguments(tmp_path), streamed, Lengths())


# A GPU that is not there.


def on_card(tmp_path: Path) -> Parts:
    args = arguments(tmp_path)
    return Parts(
        model=llama(),
        args=args,
        optimizer=None,
        seen=lambda: largest(args, None, Lengths(seq_len=64)),
        device="cuda",
    )


def room(name: str, free: int) -> Room:
    return Room(gpu=name, free_bytes=free, source="NVML", reserved_bytes=MIB, others_bytes=0)


def test_what_is_free_on_the_live_card_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    verdicts = {}
    for free in (10 * GIB, 50 * MIB):
        monkeypatch.setattr(forecasting, "live_room", lambda *_, f=free: room("Tesla T4", f))
        found = forecast(on_card(tmp_path), Where(), lambda _: None)
        verdicts[free] = found.verdict
        # The context of 430 MiB is there: it counts as usable, and as needed.
        assert found.limit.size == free + MIB + 430 * MIB
        assert found.limit.source == "free on Tesla T4 now by NVML, and held by this process"
    assert verdicts == {10 * GIB: "fits", 50 * MIB: "oom"}


def test_a_card_that_nobody_knows_has_a_limit_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecasting, "live_room", lambda *_: room("Secret X1", 20 * MIB))
    found = forecast(on_card(tmp_path), Where(), lambda _: None)
    assert (found.kind, found.verdict, found.limit.size) == ("lower bound", "oom", 21 * MIB)
    assert "unknown GPU 'Secret X1'" in found.unknown[0]
    assert found.unknown[0].endswith("name a like card: gpu=, with limit_bytes=")


class Cuda:
    """What of torch.cuda is asked: 300 MiB reserved, 120 in tensors."""

    def get_device_properties(self, index: int) -> Any:
        return SimpleNamespace(uuid="abc")

    def get_device_name(self, index: int) -> str:
        return "Tesla T4"

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 700 * MIB, 1000 * MIB

    def memory_reserved(self, index: int) -> int:
        return 300 * MIB

    def memory_allocated(self, index: int) -> int:
        return 120 * MIB


def test_the_room_is_what_is_free_and_held_less_what_others_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def of_driver(uuid: str) -> int:
        asked.append(uuid)
        return 800 * MIB

    monkeypatch.setattr("peftadvisor.profilers.room.free_bytes", of_driver)
    found = room_of(0, 100 * MIB, Cuda())
    assert (found.source, asked) == ("NVML", ["abc"])
    assert found.usable_bytes == (800 + 300 - 20) * MIB

    def no_driver(_: str) -> int:
        raise UsageError("no driver")

    monkeypatch.setattr("peftadvisor.profilers.room.free_bytes", no_driver)
    second = room_of(0, 100 * MIB, Cuda())
    assert (second.source, second.free_bytes) == ("torch.cuda.mem_get_info", 700 * MIB)


class Nvml:
    """What of pynvml is asked: one card with 5 GiB free, cut by MIG or not."""

    NVMLError = RuntimeError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, mig: int) -> None:
        self.mig, self.open = mig, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != "GPU-abc":
            raise RuntimeError("Not Found")
        return uuid

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:  # noqa: N802
        return self.mig, self.mig

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:  # noqa: N802
        return SimpleNamespace(free=5 * GIB)


def test_the_driver_tells_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(mig=0)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # type: ignore[arg-type]
    assert free_bytes("abc") == free_bytes("GPU-abc") == 5 * GIB
    with pytest.raises(UsageError, match="the driver says 'Not Found'; say how much there is"):
        free_bytes("other")
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(mig=1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="split by MIG"):
        free_bytes("abc")
    assert nvml.open == 0


def test_a_prediction_is_compared_with_its_own_device_only(tmp_path: Path) -> None:
    found = preflight(llama(), arguments(tmp_path), seq_len=16)
    assert found.allocated_peak_bytes is not None
    half = Measured(
        allocated_peak_bytes=2 * found.allocated_peak_bytes,
        reserved_peak_bytes=None,
        steps=3,
        how="by hand",
    )
    assert found.with_measured(half).error == -0.5
    assert found.with_measured(half).comparison.endswith("in 3 steps (by hand): -50.0%")
    of_card = replace(half, reserved_peak_bytes=1)
    assert found.with_measured(of_card).error is None


def test_the_example_of_the_documentation_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "preflight_in_code.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exec(compile(example, "preflight_in_code.md", "exec"), {})
    said = capsys.readouterr().out
    assert "pre-flight: does not fit: needs a predicted" in said
    assert "pre-flight: fits: a predicted" in said
    assert re.search(r"pre-flight: predicted .* \(by the record of every allocation\): -0.0%", said)


def test_it_is_offered_by_name() -> None:
    assert peftadvisor.PreflightCallback is PreflightCallback
    assert peftadvisor.preflight is preflight
