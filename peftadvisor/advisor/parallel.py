"""Do independent pure computations on several cores, where forking is cheap and safe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

FEWEST = 4
"""Below this many jobs a fork costs more than it saves."""


def map_forked(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None = None
) -> list[Result]:
    """``[function(job) for job in jobs]``, shared out to forked processes.

    Jobs are inherited, not sent; results are sent back. In one process where there is one core,
    no fork, few jobs, or torch is loaded (its threads do not survive a fork). An exception in a
    process is raised here.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    safe = sys.platform == "linux" and "torch" not in sys.modules
    if workers < 2 or len(jobs) < FEWEST or not safe:
        return [function(job) for job in jobs]
    from multiprocessing import get_context

    context = get_context("fork")

    def work(first: int, end: Any) -> None:
        try:
            end.send([function(job) for job in jobs[first::workers]])
        except Exception as error:  # raised again by the parent
            end.send(error)

    ends = []
    for first in range(workers):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(first, theirs), daemon=True)
        process.start()
        theirs.close()
        ends.append((mine, process))
    results: list[Any] = [None] * len(jobs)
    for first, (end, process) in enumerate(ends):
        answer = end.recv()
        process.join()
        if isinstance(answer, Exception):
            raise answer
        results[first::workers] = answer
    return results
