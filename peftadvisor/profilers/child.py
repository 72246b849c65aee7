"""Work in a process of its own: what it takes, breaks or leaves behind stays there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from time import monotonic
from typing import Any, Literal, cast

from peftadvisor.errors import PeftAdvisorError, UsageError
from peftadvisor.profilers.records import Status

Say = Callable[[str], None]


class ChildDiedError(PeftAdvisorError):
    """The process that measured was killed, failed, or ran out of memory: its ``status``."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Nursery:
    """How children are made, and how long they may take.

    ``spawn`` starts Python anew; ``forkserver`` forks from a process that has imported what
    ``multiprocessing.set_forkserver_preload`` names, which saves many short runs their imports.
    """

    start: Literal["spawn", "forkserver"] = "spawn"
    limit_s: float | None = None


ANEW = Nursery()


def in_child(
    work: Callable[..., Any],
    *arguments: Any,
    say: Say,
    nursery: Nursery = ANEW,
    **options: Any,
) -> Any:
    """``work(*arguments, say=..., **options)`` in a new process; its result.

    Raises:
        UsageError: what the work raised for its user.
        ChildDiedError: the process ended otherwise, or took longer than it may.
    """
    context = cast(SpawnContext, multiprocessing.get_context(nursery.start))
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, work, arguments, options), daemon=True)
    child.start()
    theirs.close()
    patience_s = 5.0
    try:
        return _answer(ours, say, nursery.limit_s)
    except EOFError:
        child.join()
        raise ChildDiedError(f"the measured run {_ending(child.exitcode)}", "killed") from None
    except TimeoutError:
        patience_s = 0.0
        text = f"the measured run took longer than {nursery.limit_s:.0f} s"
        raise ChildDiedError(text, "killed") from None
    finally:
        ours.close()
        if child.is_alive():
            child.join(timeout=patience_s)
        if child.is_alive():
            child.kill()
            child.join()


def _answer(connection: Connection, say: Say, limit_s: float | None) -> Any:
    until = None if limit_s is None else monotonic() + limit_s
    while True:
        if until is not None and not connection.poll(max(0.0, until - monotonic())):
            raise TimeoutError
        kind, value = connection.recv()
        if kind == "say":
            say(value)
        elif kind == "refused":
            raise UsageError(value)
        elif kind in ("failed", "out of memory"):
            raise ChildDiedError(f"the measured run failed: {value}", kind)
        else:
            return value


_SILENT = "99"
"""torch's profiler prints its trace points to stderr below this."""


def _serve(
    connection: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)
    try:
        done = work(*arguments, say=lambda text: connection.send(("say", text)), **options)
        connection.send(("done", done))
    except UsageError as error:
        connection.send(("refused", str(error)))
    except Exception as error:
        name, text = type(error).__name__, " ".join(str(error).split())[:300]
        full = isinstance(error, MemoryError) or name == "OutOfMemoryError"
        connection.send(("out of memory" if full else "failed", f"{name}: {text}"))
    finally:
        connection.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (the machine may have run out of memory)" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
    return f"ended without an answer, exit code {code}"
