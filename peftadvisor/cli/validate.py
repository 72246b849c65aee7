"""``peftadvisor validate``: predictions beside measurements."""

from __future__ import annotations

from pathlib import Path

import click

from peftadvisor.cli import completing, options
from peftadvisor.cli.output import check_writable, emit, progress


@click.command("validate")
@click.argument("file", metavar="FILE.csv", shell_complete=completing.files)
@click.option("--source", multiple=True, metavar="NAME", help="Only rows of it; repeatable.")
@click.option(
    "--fidelity",
    multiple=True,
    type=click.Choice(["A", "B", "C"]),
    help="Only rows described this well, A being best; repeatable.",
)
@click.option("--rows", is_flag=True, help="Show every row, as HTML always does.")
@options.page_output
def command(
    file: str,
    source: tuple[str, ...],
    fidelity: tuple[str, ...],
    rows: bool,
    fmt: str,
    out: str | None,
) -> None:
    """Hold predictions against the measurements in FILE.csv, and say how far off they are.

    Columns are those that 'peftadvisor profile export' writes. Rows that do not say what memory
    and time depend on, or what cannot be predicted yet, are left out and counted by reason.
    Recordings that are missing are made, which takes a while the first time.
    """
    from peftadvisor.data.measurements import chosen, read_measurements
    from peftadvisor.integrations.validation import validate

    check_writable(out)
    found = chosen(read_measurements(Path(file)), source, fidelity)
    with progress(f"Predicting {len(found)} rows") as say:
        validation = validate(found, say, file=file, keep_rows=rows or fmt == "html")
    emit(validation, fmt, out)
