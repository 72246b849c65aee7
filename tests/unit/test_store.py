"""The store of profiles: nothing is lost, nothing half written, whatever ends the writer."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.profilers.records import Record
from peftadvisor.profilers.store import VERSION, default_store, open_store

KILLS = 100
RUN = {"model": "t5-small", "method": "lora"}
# Adds records for ever and says which are safe.
WRITER = """
import sys
from peftadvisor.profilers.records import Record
from peftadvisor.profilers.store import open_store

with open_store(sys.argv[1]) as store:
    for number in range(int(sys.argv[2])):
        run = {"number": number, "long": "x" * 5000}
        made = store.add(Record(status="done", reached="end", run=run, profile={"peak": number}))
        print(made.id, flush=True)
"""


def record(number: int = 1) -> Record:
    return Record(status="done", reached="end", run=RUN, profile={"peak_bytes": number})


def add(path: Path, given: Record) -> int:
    with open_store(str(path)) as store:
        return store.add(given).id


def writer(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def everything(path: Path) -> list[Record]:
    with open_store(str(path), create=False) as store:
        return list(store.records())


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "profiles.db"
    broken = Record(status="killed", reached="timing steps", run=RUN)
    with open_store(str(path)) as store:
        first, second = store.add(record()), store.add(broken)
    assert (first.id, second.id) == (1, 2)
    assert first.created
    assert everything(path) == [first, second]
    assert everything(path)[1].to_dict()["profile"] is None


@pytest.mark.parametrize("slashes", ["sqlite:///", ""])
def test_an_address_may_have_a_scheme(slashes: str, tmp_path: Path) -> None:
    with open_store(f"{slashes}{tmp_path}/profiles.db") as store:
        store.add(record())
    assert len(everything(tmp_path / "profiles.db")) == 1


@pytest.mark.slow
def test_a_killed_writer_loses_nothing(tmp_path: Path) -> None:
    path, chance, safe = tmp_path / "profiles.db", random.Random(0), 0
    for _ in range(KILLS):
        with writer(path, 10**6) as child:
            assert child.stdout is not None
            if chance.random() < 0.8:  # else it may be killed while it makes or opens the file
                child.stdout.readline()
            time.sleep(chance.random() * 0.02)
            child.send_signal(signal.SIGKILL)
            said = child.stdout.read().split()
        safe = max([safe, *map(int, said)])
        if path.exists():
            records = everything(path)
            assert len(records) >= safe
            assert [r.id for r in records] == list(range(1, len(records) + 1))
            assert all(r.profile == {"peak": r.run["number"]} for r in records)
    assert safe > KILLS / 2


def test_two_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "profiles.db"
    children = [writer(path, 60) for _ in range(2)]
    for child in children:
        child.communicate()
        assert child.returncode == 0
    records = everything(path)
    assert len(records) == 120
    assert sorted(r.run["number"] for r in records) == sorted([*range(60), *range(60)])


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "profiles.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(UsageError, match="newer peftadvisor .*upgrade, or name another"):
        everything(path)


def test_lines_are_a_store_too(tmp_path: Path) -> None:
    path = tmp_path / "profiles.jsonl"
    assert [add(path, record(n)) for n in (1, 2)] == [1, 2]
    with path.open("a") as file:
        file.write('{"status": "do')  # its writer was killed
    assert [r.profile for r in everything(path)] == [{"peak_bytes": 1}, {"peak_bytes": 2}]
    assert add(path, record(3)) == 3
    assert [r.id for r in everything(path)] == [1, 2, 3]
    path.write_text('{"status": 1}\n')
    with pytest.raises(UsageError, match="line 1: is no record"):
        everything(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be read as the head of one" * 20)
    for path in (text, tmp_path, text / "below" / "profiles.db"):
        with pytest.raises(UsageError, match="cannot be used .*name another by --store"):
            add(path, record())
    with pytest.raises(UsageError, match="no SQLite file"), open_store("postgresql://host/db"):
        pass
    with pytest.raises(UsageError, match="there is no store"):
        everything(tmp_path / "missing.db")


def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        path = tmp_path / "profiles.db"
        big = Record(status="done", reached="end", run={**RUN, "long": "x" * 5000})
        added = [add(path, big)]
        with pytest.raises(UsageError, match="full"):
            added.extend(add(path, big) for _ in range(1000))
        assert [r.id for r in everything(path)] == added
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PEFTADVISOR_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == str(tmp_path / "peftadvisor" / "profiles.db")
    monkeypatch.setenv("PEFTADVISOR_STORE", "sqlite:////elsewhere/x.db")
    assert default_store() == "sqlite:////elsewhere/x.db"
