"""``peftadvisor doctor``: what is installed here, and what of it works."""

from __future__ import annotations

import click

from peftadvisor.cli import options
from peftadvisor.cli.output import check_writable, emit


@click.command("doctor")
@options.output
def command(fmt: str, out: str | None) -> int:
    """Look at this installation: versions, recordings, GPU, calibration, folders, environment.

    Nothing is imported, fetched or changed. What only some commands need is noted, with what it
    takes.

    Exit codes: 0 advice works; 1 something that it needs is missing or damaged.
    """
    from peftadvisor.integrations.examining import health

    check_writable(out)
    found = health()
    emit(found, fmt, out)
    return found.exit_code
