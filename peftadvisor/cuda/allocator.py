"""Replay of PyTorch's CUDA caching allocator: one stream, one device, a list of events.

Restated from torch 2.13: ``c10/core/AllocatorConfig.h``, ``c10/cuda/CUDACachingAllocator.cpp``.

* A request is rounded up to 512 B. Up to 1 MiB it belongs to the small pool, with segments of
  2 MiB; above, to the large pool, with segments of 20 MiB for a request below 10 MiB and
  otherwise of the request rounded up to 2 MiB.
* The smallest free block that fits is taken, the lowest address among equals. Its rest is split
  off from 512 B on (small pool) or when above 1 MiB (large pool).
* A freed block merges with its free neighbours in the segment. Segments stay until ``empty_cache``
  or until a new one does not fit the device: then the entirely free ones are given back.
* With ``max_split_size``, blocks of that size or more are never split, serve only requests that
  are as large, waste less than 20 MiB, and are the first to be given back.
* With ``expandable_segments``, each pool is one address range, mapped by pages (2 MiB small,
  20 MiB large) as it grows; both pools split off rests of 512 B.
* The driver chooses the addresses of segments. A convention here: a younger segment lies higher.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]

EMPTY_CACHE = 0  # the event that stands for torch.cuda.empty_cache()
_UNIT = 512  # bytes; sizes and addresses below count these
_MIB = 2**20 // _UNIT  # also the largest request of the small pool
_OWN_SEGMENT = 10 * _MIB  # from here on a segment of the request's own size,
_ROUND_LARGE = 2 * _MIB  # rounded up to this
_PAGES = (2 * _MIB, 20 * _MIB)  # segment or page of the small and the large pool
_NO_LIMIT = 1 << 62

# A block is one integer, size << _SHIFT | address: a sorted list of blocks is in best-fit order.
_SHIFT = 44
_MASK = (1 << _SHIFT) - 1
_RANGE = _PAGES[1] << 27  # length of an expandable address range, 2.5 PiB: without end


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """What ``torch.cuda.memory_stats()`` would say after the events; sizes in bytes."""

    allocated_peak_bytes: int  # allocated_bytes.all.peak: rounded requests, rests not split off
    reserved_peak_bytes: int  # reserved_bytes.all.peak: segments or mapped pages
    allocated_end_bytes: int
    reserved_end_bytes: int
    oom_event: int | None  # index of the event that ran out of memory and ended the replay
    segments: int  # held at the end; if expandable, the pools that hold mapped pages


class _Arena:
    """Device memory and its free blocks: all but the hot path.

    ``starts`` and ``ends`` find a free block by where it starts or ends. Segments never touch, so
    what starts where a block ends is its neighbour in the same segment.
    """

    def __init__(self, capacity: int, max_split: int, expandable: bool) -> None:
        self.free: tuple[list[int], list[int]] = ([], [])  # small and large pool, sorted
        self.starts: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.segments: dict[int, int] = {}  # address -> size
        self.unmapped = ({0: _RANGE}, {_RANGE: _RANGE})  # address -> size; expandable segments
        self.reserved = self.reserved_peak = self.next_address = 0
        self.capacity, self.max_split, self.expandable = capacity, max_split, expandable

    def put(self, pool: list[int], address: int, size: int) -> None:
        """Add a free block, merged with its free neighbours."""
        end = address + size
        if end in self.starts:
            after = self.starts.pop(end)
            del pool[bisect_left(pool, after)]
            end += after >> _SHIFT
        if address in self.ends:
            before = self.ends.pop(address)
            del pool[bisect_left(pool, before)]
            address = before & _MASK
        block = (end - address) << _SHIFT | address
        self.starts[address] = self.ends[end] = block
        insort(pool, block)

    def take(self, large: bool, size: int) -> int:
        """Position in ``free[large]`` of the block for a request, or -1 when out of memory."""
        position = self._best_fit(large, size)
        if position >= 0:
            return position
        grow = self._expand if self.expandable else self._new_segment
        block = grow(large, size) or (self._release_oversize(large, size) and grow(large, size))
        if not block:
            self.release_cached()
            block = grow(large, size)
        return bisect_left(self.free[large], block) if block else -1

    def _best_fit(self, large: bool, size: int) -> int:
        pool = self.free[large]
        position = bisect_left(pool, size << _SHIFT)
        if position == len(pool):
            return -1
        if not self.expandable:
            limit = self.max_split if size < self.max_split else size + _PAGES[1]
            return position if pool[position] >> _SHIFT < limit else -1
        room = self._room(large, pool[position])  # what can grow is spared while others fit
        while position + 1 < len(pool) and self._room(large, pool[position + 1]) < room:
            position += 1
            room = self._room(large, pool[position])
        return position

    def _room(self, large: bool, block: int) -> int:
        size = block >> _SHIFT
        return size + self.unmapped[large].get((block & _MASK) + size, 0)

    def _charge(self, size: int) -> bool:
        if self.reserved + size > self.capacity:
            return False
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return True

    def _new_segment(self, large: bool, size: int) -> int:
        total = -(-size // _ROUND_LARGE) * _ROUND_LARGE if size >= _OWN_SEGMENT else _PAGES[large]
        if not self._charge(total):
            return 0
        address = self.next_address
        self.next_address += total + 1  # the gap keeps segments from touching
        self.segments[address] = total
        self.put(self.free[large], address, total)
        return self.starts[address]

    def _expand(self, large: bool, size: int) -> int:
        """Map pages at the lowest address where free and unmapped ranges make up the request."""
        unmapped = self.unmapped[large]
        begin = 0
        for hole in sorted(unmapped):
            begin = end = self.ends[hole] & _MASK if hole in self.ends else hole
            while end - begin < size and (end in self.starts or end in unmapped):
                end += self.starts[end] >> _SHIFT if end in self.starts else unmapped[end]
            if end - begin >= size:
                break
        while (have := self.starts.get(begin, 0) >> _SHIFT) < size:
            address = begin + have
            total = min(-(-(size - have) // _PAGES[large]) * _PAGES[large], unmapped[address])
            if not self._charge(total):
                return 0
            rest = unmapped.pop(address) - total
            if rest:
                unmapped[address + total] = rest
            self.put(self.free[large], address, total)
        return self.starts[begin]

    def _release_oversize(self, large: bool, size: int) -> bool:
        """Give back one block of ``max_split`` or more that is large enough, or several."""
        pool = self.free[large]
        wanted = max(size, self.max_split)
        position = bisect_left(pool, wanted << _SHIFT)
        released = 0
        while released < wanted and pool and pool[-1] >> _SHIFT >= self.max_split:
            block = pool[min(position, len(pool) - 1)]  # the least large enough, else the largest
            released += block >> _SHIFT
            self._release(pool, block, self.segments.pop(block & _MASK))
        return released >= wanted

    def release_cached(self) -> None:
        """Give back every entirely free segment, or every entirely free page."""
        for large, pool in enumerate(self.free):
            for block in pool.copy():
                if self.expandable:
                    self._unmap(pool, block, self.unmapped[large], _PAGES[large])
                elif self.segments.get(block & _MASK) == block >> _SHIFT:
                    self._release(pool, block, self.segments.pop(block & _MASK))

    def _release(self, pool: list[int], block: int, size: int) -> None:
        del pool[bisect_left(pool, block)]
        del self.starts[block & _MASK], self.ends[(block & _MASK) + (block >> _SHIFT)]
        self.reserved -= size

    def _unmap(self, pool: list[int], block: int, unmapped: dict[int, int], page: int) -> None:
        address = block & _MASK
        end = address + (block >> _SHIFT)
        first, last = -(-address // page) * page, end // page * page
        if first >= last:
            return
        self._release(pool, block, last - first)
        if first > address:
            self.put(pool, address, first - address)
        if last < end:
            self.put(pool, last, end - last)
        size = last - first + unmapped.pop(last, 0)
        before = next((hole for hole, length in unmapped.items() if hole + length == first), first)
        unmapped[before] = size + first - before


def replay(
    events: Ints,
    sizes: Ints,
    *,
    capacity_bytes: int | None = None,
    expandable_segments: bool = False,
    max_split_size_bytes: int | None = None,
) -> ReplayResult:
    """Replay allocations and frees, in about a microsecond each.

    Args:
        events: In order of time: ``k`` allocates storage ``k``, ``-k`` frees it, ``EMPTY_CACHE``
            (0) empties the cache. Storages count from 1; a freed one may be allocated again.
        sizes: ``sizes[k - 1]`` is the size of storage ``k`` in bytes; zero bytes take nothing.
        capacity_bytes: What the allocator may reserve on the device; None for no bound.
        expandable_segments: As in ``PYTORCH_ALLOC_CONF``.
        max_split_size_bytes: ``max_split_size_mb`` in bytes, not with ``expandable_segments``.

    Returns:
        Peaks and final values, up to the end or to the event that ran out of memory.

    Raises:
        ValueError: An event allocates a live storage or frees another; an argument is off range.
    """
    max_split = _NO_LIMIT
    if max_split_size_bytes is not None:
        max_split, odd = divmod(max_split_size_bytes, _UNIT)
        if odd or max_split % _MIB or max_split <= _PAGES[1] or expandable_segments:
            raise ValueError("max_split_size_bytes: whole MiB above 20, no expandable segments")
    codes = np.asarray(events, dtype=np.int64)
    nbytes = np.asarray(sizes, dtype=np.int64)
    if nbytes.min(initial=0) < 0 or np.abs(codes).max(initial=0) > nbytes.size:
        raise ValueError(f"a negative size, or an event beyond the {nbytes.size} storages")
    units: list[int] = [0, *(-(-nbytes // _UNIT)).tolist()]
    capacity = _RANGE // 2 if capacity_bytes is None else capacity_bytes // _UNIT
    arena = _Arena(min(capacity, _RANGE // 2), max_split, expandable_segments)
    allocated, allocated_peak, oom_event = _run(codes.tolist(), units, arena)
    mapped_pools = sum(sum(holes.values()) < _RANGE for holes in arena.unmapped)
    return ReplayResult(
        allocated_peak_bytes=allocated_peak * _UNIT,
        reserved_peak_bytes=arena.reserved_peak * _UNIT,
        allocated_end_bytes=allocated * _UNIT,
        reserved_end_bytes=arena.reserved * _UNIT,
        oom_event=oom_event,
        segments=len(arena.segments) + mapped_pools,
    )


def _run(events: list[int], units: list[int], arena: _Arena) -> tuple[int, int, int | None]:
    """Units allocated at the end, their peak, and the event that ran out of memory."""
    small, large = arena.free
    starts, ends, put, max_split = arena.starts, arena.ends, arena.put, arena.max_split
    plain = not arena.expandable and max_split == _NO_LIMIT
    large_rest = 1 if arena.expandable else _MIB + 1  # least rest that is split off
    find, shift, mask, small_max = bisect_left, _SHIFT, _MASK, _MIB
    live = [-1] * len(units)  # storage -> its block; 0 for no bytes, -1 for not live
    allocated = peak = 0
    for index, event in enumerate(events):
        if event > 0:
            if live[event] >= 0:
                raise ValueError(f"event {index} allocates storage {event}, which is live")
            size = units[event]
            if not size:
                live[event] = 0
                continue
            # A block handed out is above 1 MiB just when its request was: its size tells its pool.
            pool, least_rest = (large, large_rest) if size > small_max else (small, 1)
            position = find(pool, size << shift)
            if not plain or position == len(pool):
                position = arena.take(pool is large, size)
                if position < 0:
                    return allocated, peak, index
            block = pool.pop(position)
            address = block & mask
            have = block >> shift
            del starts[address]
            if have - size >= least_rest and size < max_split:
                tail = address + size
                rest = (have - size) << shift | tail
                starts[tail] = ends[address + have] = rest
                insort(pool, rest, 0, position)
                block = size << shift | address
                have = size
            else:
                del ends[address + have]
            live[event] = block
            allocated += have
            if allocated > peak:
                peak = allocated
        elif event:
            block = live[-event]
            live[-event] = -1
            if block > 0:
                size = block >> shift
                allocated -= size
                put(large if size > small_max else small, block & mask, size)
            elif block:
                raise ValueError(f"event {index} frees storage {-event}, which is not live")
        else:
            arena.release_cached()
    return allocated, peak, None
