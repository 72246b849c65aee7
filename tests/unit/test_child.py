"""Work in a child process: answers, refusals, and deaths of every kind. No torch here."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import ChildDiedError, in_child


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


def test_an_answer_comes_back() -> None:
    said: list[str] = []
    assert in_child(answer, 6, times=7, say=said.append) == 42
    assert said == ["multiplying"]


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
