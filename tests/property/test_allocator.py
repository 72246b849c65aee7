"""The allocator replay against a slow reference, and what must hold of any event list."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from peftadvisor.cuda import allocator
from peftadvisor.cuda.allocator import EMPTY_CACHE, ReplayResult, replay

KIB = 2**10
MIB = 2**20
PAGE = {False: 2 * MIB, True: 20 * MIB}
ENDLESS = 2**50

FREE, LIVE, UNMAPPED = "free", "live", "unmapped"


@dataclass(eq=False)
class Block:
    address: int
    size: int
    state: str


def round_up(size: int, step: int) -> int:
    return (size + step - 1) // step * step


class Reference:
    """Every rule as a scan over all blocks; a segment is a list of blocks in address order."""

    def __init__(self, capacity: int | None, expandable: bool, max_split: int | None) -> None:
        self.capacity = capacity
        self.expandable = expandable
        self.max_split = max_split
        self.segments: dict[bool, list[list[Block]]] = {False: [], True: []}
        if expandable:
            self.segments = {k: [[Block(0, ENDLESS, UNMAPPED)]] for k in (False, True)}
        self.next_address = 0
        self.reserved = self.reserved_peak = 0

    def malloc(self, size: int) -> Block | None:
        size = round_up(size, 512)
        large = size > MIB
        self.merge()
        found = self.get_free_block(size, large) or self.get_new_block(size, large)
        if found is None:
            return None
        segment, block = found
        rest = block.size - size
        if large and not self.expandable:
            split = rest > MIB and (self.max_split is None or size < self.max_split)
        else:
            split = rest >= 512
        if split:
            segment.insert(segment.index(block) + 1, Block(block.address + size, rest, FREE))
            block.size = size
        block.state = LIVE
        return block

    def get_free_block(self, size: int, large: bool) -> tuple[list[Block], Block] | None:
        fits = [
            (block.size, block.address, segment, block)
            for segment in self.segments[large]
            for block in segment
            if block.state == FREE and block.size >= size
        ]
        if not fits:
            return None
        fits.sort(key=lambda fit: fit[:2])
        while self.expandable and len(fits) > 1 and self.room(*fits[1]) < self.room(*fits[0]):
            del fits[0]
        have, _, segment, block = fits[0]
        if self.max_split is not None:
            if size < self.max_split <= have:
                return None
            if size >= self.max_split and have >= size + 20 * MIB:
                return None
        return segment, block

    def room(self, size: int, _address: int, segment: list[Block], block: Block) -> int:
        after = segment[segment.index(block) + 1 :]
        return size + (after[0].size if after and after[0].state == UNMAPPED else 0)

    def get_new_block(self, size: int, large: bool) -> tuple[list[Block], Block] | None:
        grow = self.expand if self.expandable else self.cuda_malloc
        if found := grow(size, large):
            return found
        if self.release_some(size, large) and (found := grow(size, large)):
            return found
        self.empty_cache()
        return grow(size, large)

    def cuda_malloc(self, size: int, large: bool) -> tuple[list[Block], Block] | None:
        if not large:
            total = 2 * MIB
        elif size < 10 * MIB:
            total = 20 * MIB
        else:
            total = round_up(size, 2 * MIB)
        if not self.reserve(total):
            return None
        block = Block(self.next_address, total, FREE)
        self.next_address += total
        self.segments[large].append([block])
        return self.segments[large][-1], block

    def reserve(self, size: int) -> bool:
        if self.capacity is not None and self.reserved + size > self.capacity:
            return False
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return True

    def expand(self, size: int, large: bool) -> tuple[list[Block], Block] | None:
        (segment,) = self.segments[large]
        # Runs of blocks that are not live, from an unmapped block or the free one before it.
        for index, block in enumerate(segment):
            if block.state != UNMAPPED:
                continue
            first = index - 1 if index and segment[index - 1].state == FREE else index
            total = 0
            for follower in segment[first:]:
                if follower.state == LIVE:
                    break
                total += follower.size
            if total >= size:
                break
        start = segment[first].address
        while True:
            block = next(b for b in segment if b.address == start)
            if block.state == FREE and block.size >= size:
                return segment, block
            have = block.size if block.state == FREE else 0
            hole = next(b for b in segment if b.address == start + have)
            assert hole.state == UNMAPPED
            mapped = min(round_up(size - have, PAGE[large]), hole.size)
            if not self.reserve(mapped):
                return None
            if mapped < hole.size:
                rest = Block(hole.address + mapped, hole.size - mapped, UNMAPPED)
                segment.insert(segment.index(hole) + 1, rest)
            hole.size, hole.state = mapped, FREE
            self.merge()

    def release_some(self, size: int, large: bool) -> bool:
        if self.max_split is None:
            return False
        wanted = max(size, self.max_split)
        oversize = [
            segment
            for segment in self.segments[large]
            if segment[0].state == FREE and segment[0].size >= self.max_split
        ]
        oversize.sort(key=lambda segment: (segment[0].size, segment[0].address))
        enough = [segment for segment in oversize if segment[0].size >= wanted]
        released = 0
        for segment in enough[:1] or reversed(oversize):
            if released < wanted:
                released += segment[0].size
                self.reserved -= segment[0].size
                self.segments[large].remove(segment)
        return released >= wanted

    def empty_cache(self) -> None:
        self.merge()
        for large in (False, True):
            if self.expandable:
                self.unmap(large)
                continue
            for segment in list(self.segments[large]):
                if len(segment) == 1 and segment[0].state == FREE:
                    self.segments[large].remove(segment)
                    self.reserved -= segment[0].size

    def unmap(self, large: bool) -> None:
        page = PAGE[large]
        (segment,) = self.segments[large]
        for block in list(segment):
            first = round_up(block.address, page)
            last = (block.address + block.size) // page * page
            if block.state != FREE or first >= last:
                continue
            self.reserved -= last - first
            parts = [
                Block(block.address, first - block.address, FREE),
                Block(first, last - first, UNMAPPED),
                Block(last, block.address + block.size - last, FREE),
            ]
            index = segment.index(block)
            segment[index : index + 1] = [part for part in parts if part.size]
        self.merge()

    def merge(self) -> None:
        for large in (False, True):
            for segment in self.segments[large]:
                merged = segment[:1]
                for block in segment[1:]:
                    if block.state != LIVE and block.state == merged[-1].state:
                        merged[-1].size += block.size
                    else:
                        merged.append(block)
                segment[:] = merged

    def count(self) -> int:
        if self.expandable:
            return sum(any(b.state != UNMAPPED for b in s[0]) for s in self.segments.values())
        return sum(map(len, self.segments.values()))


def reference_replay(
    events: list[int],
    sizes: list[int],
    *,
    capacity_bytes: int | None = None,
    expandable_segments: bool = False,
    max_split_size_bytes: int | None = None,
) -> ReplayResult:
    memory = Reference(capacity_bytes, expandable_segments, max_split_size_bytes)
    live: dict[int, Block] = {}
    allocated = peak = 0
    oom_event = None
    for index, event in enumerate(events):
        if event == EMPTY_CACHE:
            memory.empty_cache()
        elif sizes[abs(event) - 1] == 0:
            continue
        elif event < 0:
            block = live.pop(-event)
            block.state = FREE
            allocated -= block.size
        else:
            block = memory.malloc(sizes[event - 1])
            if block is None:
                oom_event = index
                break
            live[event] = block
            allocated += block.size
            peak = max(peak, allocated)
    return ReplayResult(
        allocated_peak_bytes=peak,
        reserved_peak_bytes=memory.reserved_peak,
        allocated_end_bytes=allocated,
        reserved_end_bytes=memory.reserved,
        oom_event=oom_event,
        segments=memory.count(),
    )


def random_events(seed: int, length: int) -> tuple[list[int], list[int]]:
    """A list of events: phases that mostly allocate or mostly free, few or many distinct sizes."""
    rng = random.Random(seed)
    scale = rng.choice([[KIB, MIB], [MIB, 16 * MIB], [KIB, 64 * MIB]])
    palette = [
        rng.choice([0, 1, 512, MIB, MIB + 1, 10 * MIB])
        if rng.random() < 0.2
        else rng.randrange(*scale) // rng.choice([1, 1, 16])
        for _ in range(rng.choice([3, 12, 100]))
    ]
    empty_share = rng.choice([0, 0, 0.02, 0.1])
    allocate_share = 0.6
    events: list[int] = []
    sizes: list[int] = []
    live: list[int] = []
    for step in range(length):
        if step % 40 == 0:
            allocate_share = rng.choice([0.25, 0.5, 0.75])
        if rng.random() < empty_share:
            events.append(EMPTY_CACHE)
        elif not live or rng.random() < allocate_share:
            sizes.append(rng.choice(palette))
            live.append(len(sizes))
            events.append(len(sizes))
        else:
            recent = rng.random() < 0.5
            events.append(-live.pop(-1 if recent else rng.randrange(len(live))))
    return events, sizes


event_lists = st.builds(
    random_events, st.integers(min_value=0, max_value=2**32), st.integers(0, 500)
)
options = st.one_of(
    st.fixed_dictionaries(
        {
            "capacity_bytes": st.none() | st.integers(0, 400).map(lambda count: count * MIB),
            "max_split_size_bytes": st.none() | st.integers(21, 60).map(lambda count: count * MIB),
        }
    ),
    st.fixed_dictionaries(
        {
            "capacity_bytes": st.none() | st.integers(0, 400).map(lambda count: count * MIB),
            "expandable_segments": st.just(True),
        }
    ),
)


@settings(max_examples=150, deadline=None)
@given(event_lists, options)
def test_equals_the_reference(case, chosen):
    events, sizes = case
    assert replay(events, sizes, **chosen) == reference_replay(events, sizes, **chosen)


def interpreted() -> ModuleType:
    """The allocator's arena as Python runs it, whatever was compiled of it."""
    path = Path(allocator.__file__).with_name("arena.py")
    spec = importlib.util.spec_from_loader("arena", SourceFileLoader("arena", str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETED = interpreted()


@settings(max_examples=150, deadline=None)
@given(event_lists, options)
def test_interpreted_it_says_the_same(case, chosen):
    events, sizes = case
    compiled = replay(events, sizes, **chosen)
    with mock.patch.object(allocator, "Arena", INTERPRETED.Arena):
        assert replay(events, sizes, **chosen) == compiled


@settings(max_examples=60, deadline=None)
@given(event_lists, options)
def test_reserved_covers_allocated_at_every_prefix_and_peaks_only_grow(case, chosen):
    events, sizes = case
    before = replay([], sizes, **chosen)
    for length in range(1, len(events) + 1, 7):
        result = replay(events[:length], sizes, **chosen)
        assert result.reserved_end_bytes >= result.allocated_end_bytes
        assert result.reserved_peak_bytes >= result.allocated_peak_bytes
        assert result.reserved_peak_bytes >= before.reserved_peak_bytes
        assert result.allocated_peak_bytes >= before.allocated_peak_bytes
        if chosen["capacity_bytes"] is not None:
            assert result.reserved_peak_bytes <= chosen["capacity_bytes"]
        before = result


@settings(max_examples=60, deadline=None)
@given(event_lists, st.booleans())
def test_freeing_everything_leaves_nothing(case, expandable):
    events, sizes = case
    live = set(events) - {-event for event in events} - {EMPTY_CACHE}
    events = [*events, *(-event for event in sorted(live) if event > 0)]
    freed = replay(events, sizes, expandable_segments=expandable)
    assert freed.allocated_end_bytes == 0
    emptied = replay([*events, EMPTY_CACHE], sizes, expandable_segments=expandable)
    assert (emptied.reserved_end_bytes, emptied.segments) == (0, 0)
    assert emptied.reserved_peak_bytes == freed.reserved_peak_bytes


@settings(max_examples=60, deadline=None)
@given(event_lists, st.booleans())
def test_a_capacity_as_large_as_the_peak_changes_nothing(case, expandable):
    events, sizes = case
    free = replay(events, sizes, expandable_segments=expandable)
    bound = {"capacity_bytes": free.reserved_peak_bytes, "expandable_segments": expandable}
    assert replay(events, sizes, **bound) == free
