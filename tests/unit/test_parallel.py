"""Work shared out to forked processes: the same results, errors raised here, deaths survived."""

from __future__ import annotations

import os
import sys

import pytest

from peftadvisor.advisor.parallel import map_forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no fork elsewhere")


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests load torch, after which nothing forks."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize("jobs", [0, 1, 3, 4, 50, 3000])
def test_results_come_in_order(jobs: int) -> None:
    assert map_forked(lambda n: n * n, range(jobs), workers=3) == [n * n for n in range(jobs)]


def test_several_processes_take_part() -> None:
    def where(_: int) -> int:
        sum(range(200_000))
        return os.getpid()

    assert len(set(map_forked(where, range(40), workers=2))) == 2


def test_an_error_is_raised_here() -> None:
    def fail(n: int) -> int:
        raise ValueError(f"job {n}")

    with pytest.raises(ValueError, match="job"):
        map_forked(fail, range(10), workers=2)


def test_what_a_killed_fork_left_is_done_here() -> None:
    here = os.getpid()

    def fragile(n: int) -> int:
        if os.getpid() != here:
            os._exit(9)
        sum(range(200_000))
        return n

    assert map_forked(fragile, range(20), workers=2) == list(range(20))


def test_what_cannot_be_sent_is_done_here_and_no_fork_stays() -> None:
    here = os.getpid()
    made = map_forked(lambda n: lambda: n, range(20), workers=2)
    assert [make() for make in made] == list(range(20))
    assert os.getpid() == here
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
