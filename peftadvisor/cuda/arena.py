"""Blocks, pools and device memory of PyTorch's CUDA caching allocator; the rules: ``allocator``.

Sizes and addresses count units of 512 B. Where a C compiler is at hand the installer compiles this
file with mypyc (setup.py), four times as fast; without one the same file runs interpreted.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Final

UNIT: Final = 512  # bytes
_MIB: Final = 2048  # also the largest request of the small pool
_SMALL_PAGE: Final = 2 * _MIB  # segment for small requests, or page that expands the small pool
LARGE_PAGE: Final = 20 * _MIB
_OWN_SEGMENT: Final = 10 * _MIB  # from here on a segment of the request's own size,
_ROUND_LARGE: Final = 2 * _MIB  # rounded up to this
RANGE: Final = LARGE_PAGE << 27  # an expandable address range, 2.5 PiB: without end
NO_LIMIT: Final = 1 << 62


class Block:
    """A stretch of a segment, or of an address range, that is free, taken or without memory.

    In order of ``place``, its address times -1, the lowest address comes last.
    """

    __slots__ = ("after", "before", "free", "mapped", "place", "size")

    def __init__(self, place: int, size: int, before: Block | None, after: Block | None) -> None:
        self.place = place
        self.size = size
        self.before = before  # neighbours in the same segment or range
        self.after = after
        self.free = False
        self.mapped = True

    def cut(self, size: int) -> Block:
        """Shorten it to ``size``; the rest, taken, is its neighbour."""
        after = self.after
        rest = Block(self.place - size, self.size - size, self, after)
        if after is not None:
            after.before = rest
        self.after = rest
        self.size = size
        return rest

    def join(self, after: Block) -> None:
        """Lengthen it by its neighbour, which is no more."""
        beyond = after.after
        self.size += after.size
        self.after = beyond
        if beyond is not None:
            beyond.before = self

    def room(self) -> int:
        """Its size and what could be mapped right behind it."""
        after = self.after
        return self.size + (after.size if after is not None and not after.mapped else 0)


def _position(blocks: list[Block], place: int) -> int:
    """Where a place is, or belongs, in blocks in order."""
    low, high = 0, len(blocks)
    while low < high:
        middle = (low + high) // 2
        if blocks[middle].place < place:
            low = middle + 1
        else:
            high = middle
    return low


class Pool:
    """Free blocks of the small or the large pool, by size; and ranges without memory."""

    __slots__ = ("by_size", "least_rest", "page", "sizes", "unmapped")

    def __init__(self, page: int, least_rest: int, expandable: bool) -> None:
        self.page = page
        self.least_rest = least_rest  # the least that is split off a block
        self.by_size: dict[int, list[Block]] = {}  # each list in order
        self.sizes: list[int] = []  # keys of by_size, sorted; a list may be empty
        self.unmapped: list[Block] = []  # in order
        if expandable:
            endless = Block(0, RANGE, None, None)
            endless.mapped = False
            self.unmapped.append(endless)

    def give_back(self, block: Block) -> Block:
        """Free a block; returns it merged with its free neighbours."""
        after = block.after
        if after is not None and after.free:
            self.remove(after)
            block.join(after)
        before = block.before
        if before is not None and before.free:
            self.remove(before)
            before.join(block)
            block = before
        block.free = True
        same = self.by_size.get(block.size)
        if same is None:
            self.by_size[block.size] = [block]
            insort(self.sizes, block.size)
        elif not same or same[-1].place < block.place:
            same.append(block)
        else:
            same.insert(_position(same, block.place), block)
        return block

    def remove(self, block: Block) -> None:
        """Take a certain free block out."""
        block.free = False
        same = self.by_size[block.size]
        del same[_position(same, block.place)]

    def split(self, block: Block, size: int) -> None:
        """Free what a taken block has beyond ``size``, where that is enough for a block."""
        if block.size - size >= self.least_rest:
            self.give_back(block.cut(size))

    def take(self, size: int) -> Block | None:
        """The smallest free block that fits, the lowest among equals, its rest split off."""
        position = self._smallest(size)
        if position < 0:
            return None
        block = self.by_size[self.sizes[position]].pop()
        block.free = False
        self.split(block, size)
        return block

    def _smallest(self, size: int) -> int:
        """Position of the least of ``sizes`` that fits and has blocks, or -1."""
        position = bisect_left(self.sizes, size)
        while position < len(self.sizes):
            if self.by_size[self.sizes[position]]:
                return position
            del self.by_size[self.sizes.pop(position)]
        return -1

    def fitting(self, size: int) -> Iterator[Block]:
        """Free blocks of that size or more in the order in which they are preferred."""
        position = self._smallest(size)
        while position >= 0:
            have = self.sizes[position]
            yield from reversed(self.by_size[have])
            position = self._smallest(have + 1)


class Arena:
    """Device memory with its two pools."""

    def __init__(self, capacity: int, max_split: int, expandable: bool) -> None:
        self.small = Pool(_SMALL_PAGE, 1, expandable)
        self.large = Pool(LARGE_PAGE, 1 if expandable else _MIB + 1, expandable)
        self.capacity = capacity
        self.max_split = max_split
        self.expandable = expandable
        self.plain = not expandable and max_split == NO_LIMIT  # takes what fits best, whatever
        self.allocated = self.allocated_peak = 0
        self.reserved = self.reserved_peak = 0
        self.segments = self.place = 0

    def run(self, events: list[int], units: list[int]) -> int:
        """Play events (``allocator.replay``); ``units`` begins with a filler for storage 0.

        Returns:
            The index of the event that ran out of memory and ended it, or -1.
        """
        live: list[Block | None] = [None] * len(units)
        nothing = Block(0, 0, None, None)
        for index, event in enumerate(events):
            if event > 0:
                if live[event] is not None:
                    raise ValueError(f"event {index} allocates storage {event}, which is live")
                block = self._take(units[event]) if units[event] else nothing
                if block is None:
                    return index
                live[event] = block
                self.allocated += block.size
                if self.allocated > self.allocated_peak:
                    self.allocated_peak = self.allocated
            elif event:
                block = live[-event]
                if block is None:
                    raise ValueError(f"event {index} frees storage {-event}, which is not live")
                live[-event] = None
                if block.size:
                    self.allocated -= block.size
                    self._pool(block.size).give_back(block)
            else:
                self.release_cached()
        return -1

    def held(self) -> int:
        """Segments, or where they expand the pools that hold mapped pages."""
        if not self.expandable:
            return self.segments
        unmapped = [sum(hole.size for hole in p.unmapped) for p in (self.small, self.large)]
        return sum(size < RANGE for size in unmapped)

    def _pool(self, size: int) -> Pool:
        """A block is above 1 MiB just when its request was: its size tells its pool."""
        return self.large if size > _MIB else self.small

    def _take(self, size: int) -> Block | None:
        """A block for a request, of new memory where none fits; None when out of memory."""
        pool = self._pool(size)
        if self.plain:
            block = pool.take(size)
            if block is not None:
                return block
        block = self._best_fit(pool, size) or self._grown(pool, size)
        if block is not None:
            pool.remove(block)
            if size < self.max_split:
                pool.split(block, size)
        return block

    def _best_fit(self, pool: Pool, size: int) -> Block | None:
        best: Block | None = None
        for block in pool.fitting(size):
            if not self.expandable:
                limit = self.max_split if size < self.max_split else size + LARGE_PAGE
                return block if block.size < limit else None
            if best is not None and block.room() >= best.room():
                break  # what can grow is spared while others fit
            best = block
        return best

    def _grown(self, pool: Pool, size: int) -> Block | None:
        block = self._grow(pool, size)
        if block is None and self._release_oversize(pool, size):
            block = self._grow(pool, size)
        if block is None:
            self.release_cached()
            block = self._grow(pool, size)
        return block

    def _grow(self, pool: Pool, size: int) -> Block | None:
        return self._expand(pool, size) if self.expandable else self._new_segment(pool, size)

    def _charge(self, size: int) -> bool:
        if self.reserved + size > self.capacity:
            return False
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return True

    def _new_segment(self, pool: Pool, size: int) -> Block | None:
        total = -(-size // _ROUND_LARGE) * _ROUND_LARGE if size >= _OWN_SEGMENT else pool.page
        if not self._charge(total):
            return None
        block = Block(self.place, total, None, None)
        self.place -= total
        self.segments += 1
        return pool.give_back(block)

    def _expand(self, pool: Pool, size: int) -> Block | None:
        """Map pages at the lowest address where free and unmapped ranges make up the request."""
        begin = _lowest_with_room(pool.unmapped, size)
        while not begin.free or begin.size < size:
            hole = begin.after if begin.free else begin
            assert hole is not None
            missing = size - (begin.size if begin.free else 0)
            total = min(-(-missing // pool.page) * pool.page, hole.size)
            if not self._charge(total):
                return None
            pool.unmapped.remove(hole)
            if total < hole.size:
                rest = hole.cut(total)
                rest.mapped = False
                pool.unmapped.insert(_position(pool.unmapped, rest.place), rest)
            hole.mapped = True
            begin = pool.give_back(hole)
        return begin

    def _release_oversize(self, pool: Pool, size: int) -> bool:
        """Give back one block of ``max_split`` or more that is large enough, or several."""
        wanted = max(size, self.max_split)
        released = 0
        while released < wanted:
            oversize = list(pool.fitting(self.max_split))
            if not oversize:
                return False
            block = oversize[-1]  # the largest, or else the least that will do
            for one in oversize:
                if one.size >= wanted:
                    block = one
                    break
            released += block.size
            self._release(pool, block)
        return True

    def release_cached(self) -> None:
        """Give back every entirely free segment, or every entirely free page."""
        for pool in (self.small, self.large):
            for block in list(pool.fitting(1)):
                if self.expandable:
                    self._unmap(pool, block)
                elif block.before is None and block.after is None:
                    self._release(pool, block)

    def _release(self, pool: Pool, segment: Block) -> None:
        pool.remove(segment)
        self.reserved -= segment.size
        self.segments -= 1

    def _unmap(self, pool: Pool, block: Block) -> None:
        begin, end, page = -block.place, block.size - block.place, pool.page
        first, last = -(-begin // page) * page, end // page * page
        if first >= last:
            return
        pool.remove(block)
        self.reserved -= last - first
        hole = block.cut(first - begin) if first > begin else block
        if last < end:
            pool.give_back(hole.cut(last - first))
        if hole is not block:
            pool.give_back(block)
        hole.mapped = False
        after, before = hole.after, hole.before
        if after is not None and not after.mapped:
            pool.unmapped.remove(after)
            hole.join(after)
        if before is not None and not before.mapped:
            before.join(hole)
        else:
            pool.unmapped.insert(_position(pool.unmapped, hole.place), hole)


def _lowest_with_room(holes: list[Block], size: int) -> Block:
    """Where the lowest stretch of free and unmapped blocks begins that makes up a request."""
    for hole in reversed(holes):
        begin = hole.before if hole.before is not None and hole.before.free else hole
        block: Block | None = begin
        room = 0
        while block is not None and room < size and (block.free or not block.mapped):
            room += block.size
            block = block.after
        if room >= size:
            break
    return begin
