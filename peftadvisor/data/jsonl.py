"""The user's data as JSON objects: a JSONL file, plain or gzipped, one object per line.

Read line by line, so that neither a long file nor a file of one endless line is held in memory.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError

MAX_LINE_BYTES = 4 * 1024**2
"""Of one line: a longer one is no text to train on, or no JSONL at all."""

Row = dict[str, Any]

_GZIP_MAGIC = b"\x1f\x8b"
_LIST_START = re.compile(rb"\s*\[\s*(\{|$)")
_SHOWN_KEYS = 8


def read_objects(file: str, option: str) -> Iterator[tuple[int, Row]]:
    """Line numbers from 1 and objects of a JSONL file; blank lines are passed over.

    ``option`` is what named the file on the command line, for errors to name it.

    Raises:
        UsageError: no such file, a gzipped one cut off, or a line that is too long, no UTF-8 text
            or no JSON object.
    """
    path = Path(file)
    shown = one_line(file)
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise UsageError(f"{option} {shown} {what}; it takes a JSONL file")
        with closing(_open(path)) as lines:
            number = 0
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    yield number, _object(line, f"{shown}, line {number}")
    except EOFError:
        raise UsageError(f"{option} {shown} is a gzip file cut short; fetch it again") from None
    except (OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or _reason(error)
        raise UsageError(f"{option} {shown} cannot be read ({reason}); name another file") from None


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text that a row holds under a key; ``where`` names file and line.

    Raises:
        UsageError: there is no such key, or something else under it.
    """
    if key not in row:
        raise UsageError(f"{where} has no key '{one_line(key)}'; its keys: {keys_of(row)}")
    value = row[key]
    if not isinstance(value, str):
        raise not_a(row, key, "a text", where)
    return value


def not_a(row: Mapping[str, Any], key: str, wanted: str, where: str) -> UsageError:
    """An error about what stands under a key, for the caller to raise."""
    shown = one_line(json.dumps(row[key])[:40])
    return UsageError(f"{where}: '{one_line(key)}' is {shown}, not {wanted}; name another key")


def keys_of(row: Mapping[str, Any]) -> str:
    """The first keys of a row, as an error names them."""
    return ", ".join(one_line(key) for key in list(row)[:_SHOWN_KEYS]) or "none"


def _open(path: Path) -> BufferedIOBase:
    """The file, unpacked on the way where its first bytes say gzip, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    if not packed:
        return path.open("rb")
    import gzip

    return gzip.GzipFile(path)


def _reason(error: Exception) -> str:
    return "bad path" if isinstance(error, ValueError) else "damaged gzip data"


def _object(line: bytes, where: str) -> Row:
    if len(line) > MAX_LINE_BYTES:
        size = MAX_LINE_BYTES // 1024**2
        raise UsageError(f"{where} is longer than {size} MiB; give one JSON object per line")
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{where} is not UTF-8 text; give one JSON object per line") from None
    except (ValueError, RecursionError) as error:
        if _LIST_START.match(line):
            raise _list_error(where) from None
        why = getattr(error, "msg", "numbers or nesting beyond any text")
        raise UsageError(f"{where} is not JSON ({why}); give one object per line") from None
    if isinstance(found, list) and _LIST_START.match(line):
        raise _list_error(where)
    if not isinstance(found, dict):
        raise UsageError(f'{where} holds no JSON object; write it like {{"text": "…"}}')
    return found


def _list_error(where: str) -> UsageError:
    return UsageError(
        f"{where} starts a JSON list; give one object per line: jq -c '.[]' FILE > FILE.jsonl"
    )
