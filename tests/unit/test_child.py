"""Work in a child process: answers, refusals, and deaths of every kind. No torch here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import ChildDiedError, Nursery, in_child
from peftadvisor.profilers.recorded import recorded
from peftadvisor.profilers.store import open_store


def answer(number: int, say: Any, times: int) -> int:
    say("multiplying")
    return number * times


def kill_oneself(say: Any) -> None:
    say("about to die")
    os.kill(os.getpid(), signal.SIGKILL)


def leave(say: Any) -> None:
    os._exit(7)


def refuse(say: Any) -> None:
    raise UsageError("this cannot be")


def break_down(say: Any) -> None:
    raise RuntimeError("out of\nmemory")


def fill_up(say: Any) -> None:
    raise MemoryError("no room")


def dawdle(say: Any) -> None:
    say("sleeping")
    time.sleep(60)


def test_an_answer_comes_back() -> None:
    said: list[str] = []
    assert in_child(answer, 6, times=7, say=said.append) == 42
    assert said == ["multiplying"]


def test_a_child_may_be_forked_from_a_server() -> None:
    forked = Nursery("forkserver")
    assert in_child(answer, 6, times=7, say=lambda _: None, nursery=forked) == 42
    with pytest.raises(ChildDiedError, match="was ended by SIGKILL"):
        in_child(kill_oneself, say=lambda _: None, nursery=forked)


def test_a_child_that_takes_too_long_is_ended() -> None:
    before = time.monotonic()
    with pytest.raises(ChildDiedError, match="took longer than 2 s") as caught:
        in_child(dawdle, say=lambda _: None, nursery=Nursery(limit_s=2))
    assert caught.value.status == "killed"
    assert time.monotonic() - before < 30


def test_a_child_that_dies_is_told_from_one_that_refuses() -> None:
    said: list[str] = []
    with pytest.raises(ChildDiedError, match="was ended by SIGKILL .*run out of memory"):
        in_child(kill_oneself, say=said.append)
    assert said == ["about to die"]
    with pytest.raises(ChildDiedError, match="exit code 7"):
        in_child(leave, say=said.append)
    with pytest.raises(UsageError, match="this cannot be"):
        in_child(refuse, say=said.append)
    with pytest.raises(ChildDiedError, match="failed: RuntimeError: out of memory"):
        in_child(break_down, say=said.append)


@pytest.mark.parametrize(
    ("work", "status"),
    [(kill_oneself, "killed"), (break_down, "failed"), (fill_up, "out of memory")],
)
def test_runs_that_die_are_records(work: Any, status: str, tmp_path: Path) -> None:
    address, run = str(tmp_path / "profiles.db"), {"engine": "measure"}
    with pytest.raises(ChildDiedError):
        recorded(address, run, lambda heard: in_child(work, say=heard), lambda _: None)
    with open_store(address) as store:
        (record,) = store.records()
    assert (record.status, record.profile) == (status, None)
    assert record.reached == ("about to die" if work is kill_oneself else "the start")


def interrupt(_: Any) -> Any:
    raise KeyboardInterrupt


def refuse_here(_: Any) -> Any:
    raise UsageError("this cannot be")


def test_interrupted_runs_are_records_and_refused_ones_none(tmp_path: Path) -> None:
    address, run = str(tmp_path / "profiles.db"), {"engine": "measure"}
    with pytest.raises(KeyboardInterrupt):
        recorded(address, run, interrupt, lambda _: None)
    with pytest.raises(UsageError):
        recorded(address, run, refuse_here, lambda _: None)
    with open_store(address) as store:
        assert [record.status for record in store.records()] == ["interrupted"]
