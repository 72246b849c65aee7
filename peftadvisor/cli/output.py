"""Where results go: stdout or a file; and the sign of life while one waits."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from peftadvisor.errors import PeftAdvisorError, UsageError
from peftadvisor.report import RENDERERS, Page, Value

if TYPE_CHECKING:
    from rich.status import Status

_SILENCE_S = 2.0
_MIN_WIDTH, _MAX_WIDTH = 60, 200


def check_writable(out: str | None, option: str = "--out") -> None:
    """Complain about a file to be written before the work, not after it.

    Raises:
        UsageError: the path is a directory, in no directory, or not writable.
    """
    if out is None:
        return
    try:
        problem = _problem_of(Path(out))
    except (OSError, ValueError) as error:
        problem = f"cannot be written ({getattr(error, 'strerror', None) or error})"
    if problem:
        raise UsageError(f"{option} {out} {problem}; choose another path")


def _problem_of(path: Path) -> str:
    if path.is_dir():
        return "is a directory"
    if not path.parent.is_dir():
        return f"cannot be made: {path.parent} is no directory"
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "is not writable"


def emit(value: Value, fmt: str, out: str | None) -> None:
    """Render a result and write it to ``out``, or to stdout.

    Raises:
        UsageError: the file cannot be written.
    """
    write(RENDERERS[fmt](value, _page(out)), out)


def write(text: str, out: str | None) -> None:
    """Write text to ``out``, or to stdout.

    Raises:
        UsageError: the file cannot be written.
    """
    if out is None:
        _write_stdout(text)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror})") from None


def note(text: str) -> None:
    """A remark for the user, beside the result."""
    if sys.stderr is not None:
        print(f"peftadvisor: {text}", file=sys.stderr)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner on a terminal's stderr once the work has lasted two seconds.

    What is yielded changes its text, to say what is being done now.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    latest = [text]
    started: list[Status] = []

    def say(now: str) -> None:
        latest[0] = now
        for status in started:
            status.update(now)

    timer = threading.Timer(_SILENCE_S, lambda: started.append(_spinner(latest[0])))
    timer.daemon = True
    timer.start()
    try:
        yield say
    finally:
        timer.cancel()
        timer.join()
        for status in started:
            status.stop()


def _spinner(text: str) -> Status:
    from rich.console import Console

    status = Console(stderr=True).status(text)
    status.start()
    return status


def _page(out: str | None) -> Page:
    terminal = out is None and sys.stdout is not None and sys.stdout.isatty()
    return Page(width=_width(), color=terminal and not os.environ.get("NO_COLOR"))


def _width() -> int:
    """COLUMNS, else the terminal's, else 100 columns, within what the layouts are made for."""
    import shutil

    return max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size((100, 24)).columns))


def _write_stdout(text: str) -> None:
    """Write and flush; a reader that has gone away is no error, a full disk is one."""
    stream = sys.stdout
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise PeftAdvisorError(f"cannot write to standard output ({error.strerror})") from None
