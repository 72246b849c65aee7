"""Rows of a fixed length out of sequences of many: how many it takes, as TRL fills them.

Best fit, longest first (``bfd``), keeps sequences whole and cuts those longer than a row;
``wrapped`` lays them end to end and cuts wherever a row is full (``pack_dataset`` of TRL 1,
trl/data_utils.py). TRL packs a thousand examples at a time, as ``datasets`` hands them on; here it
is the whole data set. Each thousand ends in rows not quite full, so TRL makes slightly more.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter

from peftadvisor.data.lengths import Histogram


def best_fit_rows(lengths: Histogram, row_len: int) -> int:
    """Rows of ``row_len`` tokens that hold all sequences whole, each put where least room remains.

    Equal lengths are placed together: the best row for one remains the best for the next, until
    it has no room for another. So the count is that of placing them singly, in the time that the
    unique lengths take.
    """
    rows, started = 0, _Started()
    for value, left in zip(reversed(lengths.values), reversed(lengths.counts), strict=True):
        length = min(value, row_len)
        while length and left:
            room = started.least(length)
            each = (room or row_len) // length
            wanted = -(-left // each)
            if room is None:
                taken = wanted
                rows += taken
            else:
                taken = started.take(room, wanted)
            placed = min(left, taken * each)
            full, rest = divmod(placed, each)
            started.add((room or row_len) - each * length, full)
            started.add((room or row_len) - rest * length, int(rest > 0))
            left -= placed
    return rows


def wrapped_rows(lengths: Histogram, row_len: int) -> int:
    """Rows of ``row_len`` tokens that all sequences fill, end to end; the last may be short."""
    return -(-lengths.tokens // row_len)


class _Started:
    """Rows that have been started and have room left: how many of each room."""

    def __init__(self) -> None:
        self._rooms: list[int] = []
        self._rows = Counter[int]()

    def least(self, length: int) -> int | None:
        """The least room that takes this length, None where no row has it."""
        at = bisect_left(self._rooms, length)
        return self._rooms[at] if at < len(self._rooms) else None

    def take(self, room: int, most: int) -> int:
        """Take out rows of this room, as many as there are but no more than asked for."""
        taken = min(most, self._rows[room])
        self._rows[room] -= taken
        if not self._rows[room]:
            del self._rooms[bisect_left(self._rooms, room)]
        return taken

    def add(self, room: int, rows: int) -> None:
        """Put in rows of this room; full ones are done with."""
        if not room or not rows:
            return
        if not self._rows[room]:
            insort(self._rooms, room)
        self._rows[room] += rows
