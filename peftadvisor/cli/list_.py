"""``peftadvisor list``: what is in the catalogs."""

from __future__ import annotations

import click

from peftadvisor.cli import completing, options
from peftadvisor.cli.listings import KINDS, matching, method_sheet
from peftadvisor.cli.output import check_writable, emit, note


@click.command("list")
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("filter_", metavar="[FILTER]", default="", shell_complete=completing.filters)
@options.output
def command(kind: str, filter_: str, fmt: str, out: str | None) -> None:
    """Show the models, gpus, methods or prices; FILTER keeps the rows that hold this text.

    The full name of a method shows that method with all its hyperparameters.
    """
    from peftadvisor.methods import method_names

    check_writable(out)
    if kind == "methods" and filter_ in method_names():
        emit(method_sheet(filter_), fmt, out)
        return
    listing = matching(KINDS[kind](), filter_)
    emit(listing, fmt, out)
    if not listing.rows:
        note(f"none of the {kind} holds '{filter_}'")
