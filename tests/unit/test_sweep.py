"""Sweeps go on where they stopped, whatever stopped them."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import ChildDiedError
from peftadvisor.profilers.records import Record, Status, StoreError
from peftadvisor.profilers.store import open_store
from peftadvisor.profilers.sweep import Planned, key_of, sweep

KILLS = 50  # for each kind of file
RUNS = 400
# Runs that take 1 to 5 ms, in a sweep of RUNS; says which are safe.
SWEEP = """
import sys, time
from types import SimpleNamespace
from peftadvisor.profilers.sweep import Planned, sweep

def work(number):
    def made(say):
        time.sleep(0.001 * (1 + number % 5))
        return SimpleNamespace(to_dict=lambda: {"peak": number, "long": "x" * 5000})
    return made

plan = [Planned({"number": n}, work(n)) for n in range(int(sys.argv[2]))]
for ended in sweep(sys.argv[1], plan, lambda _: None):
    print(ended.planned.run["number"], flush=True)
"""


def quiet(_: str) -> None:
    pass


def planned(number: int, error: Exception | None = None) -> Planned:
    def work(_: Any) -> Any:
        if error is not None:
            raise error
        return SimpleNamespace(to_dict=lambda: {"peak": number})

    return Planned({"number": number}, work)


def numbers(path: Path) -> list[int]:
    with open_store(str(path)) as store:
        return [record.run["number"] for record in store.records()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["profiles.db", "profiles.jsonl"])
def test_a_killed_sweep_goes_on(name: str, tmp_path: Path) -> None:
    path, chance = tmp_path / name, random.Random(1)
    command = [sys.executable, "-c", SWEEP, str(path), str(RUNS)]
    safe: set[int] = set()
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if chance.random() < 0.9:  # else it may be killed before its first run
                safe |= {int(line) for line in [child.stdout.readline()] if line}
            time.sleep(chance.random() * 0.02)
            child.send_signal(signal.SIGKILL)
            safe |= {int(line) for line in child.stdout.read().splitlines()}
        if path.exists():
            kept = numbers(path)
            assert safe <= set(kept)
            assert kept == list(range(len(kept)))  # in order, none twice, none left out
    assert len(safe) > KILLS / 2
    subprocess.run(command, check=True, capture_output=True)
    assert numbers(path) == list(range(RUNS))


def test_a_run_that_fails_does_not_end_the_sweep(tmp_path: Path) -> None:
    path = tmp_path / "profiles.db"
    died = ChildDiedError("the measured run failed: no", "out of memory")
    plan = [planned(1, died), planned(2, UsageError("cannot be built")), planned(3)]
    first = list(sweep(str(path), plan, quiet))
    assert [bool(ended.profile) for ended in first] == [False, False, True]
    assert first[1].failure == "cannot be built"
    assert numbers(path) == [1, 3]  # what is refused leaves no record, and is asked again
    assert [e.planned.run["number"] for e in sweep(str(path), plan, quiet)] == [2]


@pytest.mark.parametrize(
    ("status", "again"), [("interrupted", True), ("killed", False), ("failed", False)]
)
def test_what_was_interrupted_is_made_again(status: Status, again: bool, tmp_path: Path) -> None:
    path = tmp_path / "profiles.db"
    with open_store(str(path)) as store:
        store.add(Record(status=status, reached="timing steps", run={"number": 1}))
    assert len(list(sweep(str(path), [planned(1)], quiet))) == again


def test_a_store_lost_on_the_way_ends_the_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def lose(_: Any) -> Any:
        shutil.rmtree(folder)
        folder.write_text("a file now")
        return SimpleNamespace(to_dict=dict)

    with pytest.raises(StoreError, match="name another by --store"):
        list(sweep(str(folder / "profiles.db"), [Planned({}, lose), planned(2)], quiet))


def test_the_order_of_parts_does_not_matter() -> None:
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})
