"""Quantities as people write them, and back: the only place where GiB and hours appear."""

from __future__ import annotations

import re

from peftadvisor.errors import UsageError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_BYTE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": 1024**4,
}


def format_bytes(count: int) -> str:
    """Bytes for people: ``'20.44 GiB'``, ``'512 B'``; one GiB is 1024³ bytes."""
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def format_gib(count: int) -> str:
    """Bytes as bare GiB with one decimal, for table columns whose head names the unit."""
    return f"{count / GIB:.1f}"


def parse_bytes(text: str) -> int:
    """Read ``'24GiB'``, ``'24 GB'`` or ``'1000000'`` as bytes.

    Raises:
        UsageError: the text is no positive quantity of bytes.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = _BYTE_UNITS.get(match.group(2).lower() or "b") if match else None
    if match is None or unit is None or not 0 < float(match.group(1)) < 1e18:
        raise UsageError(f"'{text}' is not a memory size; write it like 24GiB or 24GB")
    return int(float(match.group(1)) * unit)


def format_seconds(seconds: float) -> str:
    """A duration for people: ``'412 ms'``, ``'3.2 s'``, ``'2.5 h'``."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def format_count(count: int) -> str:
    """A count for people: ``'11.31B'``, ``'20.05M'``, ``'512'``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.2f}{unit}"
    return str(count)
