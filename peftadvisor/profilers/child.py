"""Work in a process of its own: what it takes, breaks or leaves behind stays there."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from peftadvisor.errors import PeftAdvisorError, UsageError
from peftadvisor.profilers.records import Status

Say = Callable[[str], None]


class ChildDiedError(PeftAdvisorError):
    """The process that measured was killed, failed, or ran out of memory: its ``status``."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


def in_child(work: Callable[..., Any], *arguments: Any, say: Say, **options: Any) -> Any:
    """``work(*arguments, say=..., **options)`` in a new process; its result.

    Raises:
        UsageError: what the work raised for its user.
        ChildDiedError: the process ended otherwise.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(theirs, work, arguments, options), daemon=True)
    child.start()
    theirs.close()
    try:
        return _answer(ours, say)
    except EOFError:
        child.join()
        raise ChildDiedError(f"the measured run {_ending(child.exitcode)}", "killed") from None
    finally:
        ours.close()
        if child.is_alive():
            child.join(timeout=5)
        if child.is_alive():
            child.kill()
            child.join()


def _answer(connection: Connection, say: Say) -> Any:
    while True:
        kind, value = connection.recv()
        if kind == "say":
            say(value)
        elif kind == "refused":
            raise UsageError(value)
        elif kind in ("failed", "out of memory"):
            raise ChildDiedError(f"the measured run failed: {value}", kind)
        else:
            return value


def _serve(
    connection: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
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
