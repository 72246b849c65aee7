"""A store in a text file: one record per line as JSON, synced before the call returns.

For runs that are carried from one machine to another. Lines are appended under a lock; a last
line that was cut off when its writer died is passed over, and ended by the next writer.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from peftadvisor.profilers.records import Record, StoreError


class JsonLines:
    """The file need not exist; its folder must.

    Raises:
        StoreError: it cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("ab"):
            pass

    def add(self, record: Record) -> Record:
        """Append one record; its number is that of its line."""
        created = record.created or datetime.now(UTC).isoformat(timespec="seconds")
        with self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read()
            whole = text.rpartition(b"\n")[0]
            file.truncate(file.seek(len(whole) + 1 if whole else 0))
            made = replace(record, id=text.count(b"\n") + 1, created=created)
            line = json.dumps(made.to_dict(), allow_nan=False).encode() + b"\n"
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        return made

    def records(self) -> Iterator[Record]:
        """All records, oldest first."""
        lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
        for number, line in enumerate(lines, start=1):
            try:
                yield Record(**json.loads(line))
            except (ValueError, TypeError) as error:
                where = f"{self._path}, line {number}"
                raise StoreError(f"{where}: is no record; name another by --store") from error
