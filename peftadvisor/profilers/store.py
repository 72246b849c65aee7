"""The store of profiles: append-only, one record per run, on disk before the call returns.

SQLite from the standard library, or JSON lines where the file is named so. Another database would
be another class with ``add`` and ``records``, chosen by its address in ``open_store``.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from peftadvisor.profilers.lines import JsonLines
from peftadvisor.profilers.records import Record, Store, StoreError

VERSION = 1
WAIT_S = 30.0
LINES = ".jsonl"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS profiles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created TEXT NOT NULL,
    status TEXT NOT NULL,
    reached TEXT NOT NULL,
    run TEXT NOT NULL,
    profile TEXT
)
"""


def default_store() -> str:
    """PEFTADVISOR_STORE, else a file in the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return os.environ.get("PEFTADVISOR_STORE") or str(Path(home) / "peftadvisor" / "profiles.db")


@contextmanager
def open_store(address: str, *, create: bool = True) -> Iterator[Store]:
    """The store at an address: the path of an SQLite file, or ``sqlite:///PATH``.

    An absolute path has a fourth slash. A path that ends in ``.jsonl`` is a file of JSON lines.

    Raises:
        StoreError: another scheme, a file that is no store, of a newer version, missing, not
            writable or on a full disk; also from what is done inside.
    """
    scheme, _, rest = address.rpartition("://")
    if scheme not in ("", "sqlite"):
        raise StoreError(f"the store {address} is no SQLite file; others are not supported yet")
    path = Path(rest.removeprefix("/") if scheme else rest)
    if not create and not path.exists():
        raise StoreError(f"there is no store at {path}; peftadvisor profile makes one")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == LINES:
            yield JsonLines(path)
            return
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise _refusal(path, error) from error
    try:
        yield _Sqlite(connection, path)
    except sqlite3.Error as error:
        raise _refusal(path, error) from error
    finally:
        connection.close()


class _Sqlite:
    """Every record is a transaction of its own, synced to disk."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            raise StoreError(
                f"the store {path} was written by a newer peftadvisor (format {version}, here "
                f"{VERSION}); upgrade, or name another by --store"
            )
        connection.execute("PRAGMA synchronous = FULL")
        if version < VERSION:
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")

    def add(self, record: Record) -> Record:
        created = record.created or datetime.now(UTC).isoformat(timespec="seconds")
        profile = None if record.profile is None else json.dumps(record.profile, allow_nan=False)
        cursor = self._connection.execute(
            "INSERT INTO profiles (created, status, reached, run, profile) VALUES (?, ?, ?, ?, ?)",
            (created, record.status, record.reached, json.dumps(record.run), profile),
        )
        return replace(record, id=int(cursor.lastrowid or 0), created=created)

    def records(self) -> Iterator[Record]:
        rows = self._connection.execute(
            "SELECT id, created, status, reached, run, profile FROM profiles ORDER BY id"
        )
        for number, created, status, reached, run, profile in rows:
            yield Record(
                status=status,
                reached=reached,
                run=json.loads(run),
                profile=None if profile is None else json.loads(profile),
                id=number,
                created=created,
            )


def _refusal(path: Path, error: Exception) -> StoreError:
    reason = getattr(error, "strerror", None) or str(error)
    return StoreError(f"the store {path} cannot be used ({reason}); name another by --store")
