"""Do independent pure computations on several cores, where forking is cheap and safe."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

FEWEST = 3
"""Below this many jobs a fork costs more than it saves."""

_TICKET_BYTES = 2
_MOST = 2000
"""As many tickets as a pipe takes without a reader (4096 bytes at least)."""


def map_forked(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None = None
) -> list[Result]:
    """``[function(job) for job in jobs]``, done by this process and forks of it.

    Jobs are inherited, results are sent back. A pipe holds one ticket per job: whoever is free
    takes the next. All is done here where there is one core, no fork, few jobs, or torch is loaded
    (its threads do not survive a fork). An exception in a fork is raised here.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    safe = sys.platform == "linux" and "torch" not in sys.modules
    if workers < 2 or not FEWEST <= len(jobs) <= _MOST or not safe:
        return [function(job) for job in jobs]
    tickets, office = os.pipe()
    os.write(office, b"".join(n.to_bytes(_TICKET_BYTES, "big") for n in range(len(jobs))))
    os.close(office)

    def take_turns() -> dict[int, Result]:
        done = {}
        while ticket := os.read(tickets, _TICKET_BYTES):
            number = int.from_bytes(ticket, "big")
            done[number] = function(jobs[number])
        return done

    forks = [_fork(take_turns) for _ in range(workers - 1)]
    try:
        done = take_turns()
    finally:
        os.close(tickets)
        answers = [_answer(child, pipe) for child, pipe in forks]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
        done.update(answer)
    # what a fork took that was killed is done here
    return [done[n] if n in done else function(job) for n, job in enumerate(jobs)]


def _fork(work: Callable[[], Any]) -> tuple[int, int]:
    """Start a copy of this process on ``work``; its number, and the pipe its answer comes by.

    The copy leaves at once, running none of what the original registered for its own end.
    """
    mine, theirs = os.pipe()
    child = os.fork()
    if child:
        os.close(theirs)
        return child, mine
    status = 1  # interrupted, or the answer cannot be sent: the original does it again
    try:
        with os.fdopen(theirs, "wb") as pipe:
            pipe.write(pickle.dumps(_outcome(work)))
        status = 0
    finally:
        os._exit(status)


def _outcome(work: Callable[[], Any]) -> Any:
    """The answer, or what went wrong: the original raises it."""
    try:
        return work()
    except Exception as error:
        return error


def _answer(child: int, pipe: int) -> Any:
    with os.fdopen(pipe, "rb") as end:
        sent = end.read()
    os.waitpid(child, 0)
    return pickle.loads(sent) if sent else {}
