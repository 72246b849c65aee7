"""The caching allocator on event lists small enough to work out by hand."""

import numpy as np
import pytest

from peftadvisor.cuda.allocator import EMPTY_CACHE, ReplayResult, replay

MIB = 2**20


def peaks(result: ReplayResult) -> tuple[int, int]:
    return result.allocated_peak_bytes, result.reserved_peak_bytes


def ends(result: ReplayResult) -> tuple[int, int]:
    return result.allocated_end_bytes, result.reserved_end_bytes


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        (0, 0, 0),  # takes nothing
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),  # two units of 512 B in a small segment
        (MIB, MIB, 2 * MIB),  # the largest small request
        (MIB + 1, MIB + 512, 20 * MIB),  # the smallest large one
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),  # rounded below 10 MiB
        (10 * MIB - 511, 10 * MIB, 10 * MIB),  # rounded to 10 MiB: a segment of its own
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),  # rest of exactly 1 MiB is not split off
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),  # rest of 1 MiB + 512 B is
    ],
)
def test_one_allocation(size, allocated, reserved):
    assert peaks(replay([1], [size])) == (allocated, reserved)


def test_no_events():
    assert replay([], []) == ReplayResult(
        allocated_peak_bytes=0,
        reserved_peak_bytes=0,
        allocated_end_bytes=0,
        reserved_end_bytes=0,
        oom_event=None,
        segments=0,
    )


def test_numpy_arrays_and_lists_agree():
    events, sizes = [1, 2, -1, 3], [700, 3 * MIB, 900]
    assert replay(np.array(events), np.array(sizes)) == replay(events, sizes)


def test_small_blocks_share_a_segment():
    # Four of 512 KiB fill 2 MiB, the fifth opens a second segment.
    sizes = [MIB // 2] * 5
    assert peaks(replay([1, 2, 3, 4], sizes)) == (2 * MIB, 2 * MIB)
    assert replay([1, 2, 3, 4, 5], sizes).segments == 2


def test_small_and_large_requests_do_not_share():
    # 18 MiB are free in the large segment, yet 512 B come from a small one.
    assert replay([1, 2], [2 * MIB, 512]).reserved_end_bytes == 22 * MIB


def test_freed_block_is_reused():
    # 10 MiB freed and taken again by 9.5 MiB (rest 0.5 MiB stays with the block).
    result = replay([1, -1, 2], [10 * MIB, 19 * MIB // 2])
    assert peaks(result) == (10 * MIB, 10 * MIB)
    assert ends(result) == (10 * MIB, 10 * MIB)


def test_remainder_of_a_large_block_is_split_off():
    # 30 MiB freed; 12 MiB take its head, 18 MiB its tail: no new segment.
    result = replay([1, -1, 2, 3], [30 * MIB, 12 * MIB, 18 * MIB])
    assert result.reserved_peak_bytes == 30 * MIB


def test_best_fit_takes_the_smallest_block():
    # 40 and 20 MiB are free; 16 MiB take the 20, so that 38 MiB still fit the 40.
    sizes = [40 * MIB, 20 * MIB, 16 * MIB, 38 * MIB]
    assert replay([1, 2, -1, -2, 3, 4], sizes).reserved_peak_bytes == 60 * MIB
    # The other way round 38 MiB leave a rest of 2 MiB, too small for 24 MiB.
    sizes = [40 * MIB, 20 * MIB, 38 * MIB, 24 * MIB]
    assert replay([1, 2, -1, -2, 3, 4], sizes).reserved_peak_bytes == 84 * MIB


def test_equal_blocks_are_taken_at_the_lowest_address():
    # a, b, c, d of 512 KiB fill a small segment. a and c are free; the next 512 KiB takes a, so
    # that freeing d merges c and d to 1 MiB, which then fits. Had it taken c, nothing would merge.
    half = MIB // 2
    result = replay([1, 2, 3, 4, -3, -1, 5, -4, 6], [half, half, half, half, half, MIB])
    assert result.reserved_peak_bytes == 2 * MIB


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (1, 3, 2), (2, 3, 1)])
def test_free_neighbours_merge(order):
    # Three of 6 MiB and the rest of 2 MiB make up 20 MiB again, in whatever order they are freed:
    # 9 and 11 MiB fit into it.
    sizes = [6 * MIB, 6 * MIB, 6 * MIB, 9 * MIB, 11 * MIB]
    result = replay([1, 2, 3, *(-k for k in order), 4, 5], sizes)
    assert peaks(result) == (20 * MIB, 20 * MIB)


def test_blocks_of_different_segments_do_not_merge():
    # Two segments of 10 MiB, both free: 20 MiB fit neither.
    result = replay([1, 2, -1, -2, 3], [10 * MIB, 10 * MIB, 20 * MIB])
    assert result.reserved_peak_bytes == 40 * MIB


def test_empty_cache_keeps_segments_in_use():
    # 20 MiB go back; of the 2 MiB segment 512 B are in use, so it stays.
    result = replay([1, 2, -2, EMPTY_CACHE], [512, 5 * MIB])
    assert peaks(result) == (512 + 5 * MIB, 22 * MIB)
    assert ends(result) == (512, 2 * MIB)
    assert result.segments == 1
    assert ends(replay([1, 2, -2, -1, EMPTY_CACHE], [512, 5 * MIB])) == (0, 0)


def test_out_of_memory_releases_the_cache_and_retries():
    # 64 MiB: 40 are cached; 50 would exceed, so the 40 go back and 50 fit.
    events, sizes = [1, -1, 2], [40 * MIB, 50 * MIB]
    result = replay(events, sizes, capacity_bytes=64 * MIB)
    assert result.oom_event is None
    assert result.reserved_peak_bytes == 50 * MIB
    assert replay(events, sizes).reserved_peak_bytes == 90 * MIB


def test_out_of_memory_ends_the_replay():
    # 40 MiB live, 10 cached, 30 wanted of 64: the 10 go back and 30 still do not fit.
    result = replay([1, 2, -2, 3, -1], [40 * MIB, 10 * MIB, 30 * MIB], capacity_bytes=64 * MIB)
    assert result.oom_event == 3
    assert peaks(result) == (50 * MIB, 50 * MIB)
    assert ends(result) == (40 * MIB, 40 * MIB)


def test_a_split_segment_is_not_released():
    # 512 B hold the small segment's 2 MiB: of 22 MiB only 20 remain for a request of 22.
    result = replay([1, 2], [512, 22 * MIB], capacity_bytes=22 * MIB)
    assert result.oom_event == 1


def test_capacity_is_inclusive():
    assert replay([1], [20 * MIB], capacity_bytes=20 * MIB).oom_event is None
    assert replay([1], [20 * MIB], capacity_bytes=20 * MIB - 512).oom_event == 0


def test_absurd_request_runs_out_of_memory():
    assert replay([1], [2**62]).oom_event == 0
    assert replay([1], [2**62], expandable_segments=True).oom_event == 0


def test_max_split_size():
    # A free 40 MiB block is oversize for 24 MiB requests (limit 32): they get their own segment.
    sizes = [40 * MIB, 24 * MIB]
    limit = {"max_split_size_bytes": 32 * MIB}
    assert replay([1, -1, 2], sizes, **limit).reserved_peak_bytes == 64 * MIB
    # 34 MiB may have it whole, as it wastes less than 20 MiB.
    assert peaks(replay([1, -1, 2], [40 * MIB, 34 * MIB], **limit)) == (40 * MIB, 40 * MIB)
    # A block of 54 MiB would waste 20 MiB.
    assert replay([1, -1, 2], [54 * MIB, 34 * MIB], **limit).reserved_peak_bytes == 88 * MIB


def test_max_split_size_releases_just_enough():
    # Of the cached 60 and 40 MiB, a request of 80 frees both with no single one large enough, a
    # request of 24 with 110 MiB of capacity frees the 40: the least of at least 32 MiB.
    sizes = [60 * MIB, 40 * MIB, 80 * MIB, 24 * MIB]
    limit = {"max_split_size_bytes": 32 * MIB, "capacity_bytes": 110 * MIB}
    assert replay([1, 2, -1, -2, 3], sizes, **limit).reserved_end_bytes == 80 * MIB
    assert replay([1, 2, -1, -2, 4], sizes, **limit).reserved_end_bytes == 84 * MIB


def test_expandable_segments_grow_by_pages():
    expand = {"expandable_segments": True}
    # One page of 2 MiB for 512 B, one of 20 MiB for 2 MiB; 24 MiB more need 6 beyond the page.
    assert peaks(replay([1, 2], [512, 2 * MIB], **expand)) == (512 + 2 * MIB, 22 * MIB)
    result = replay([1, 2], [2 * MIB, 24 * MIB], **expand)
    assert peaks(result) == (26 * MIB, 40 * MIB)
    assert result.segments == 1


def test_expandable_segments_split_small_rests_of_large_blocks():
    # 12 MiB freed, 11 taken: the rest of 1 MiB is split off, unlike in plain segments.
    sizes = [12 * MIB, 8 * MIB, 11 * MIB]
    result = replay([1, 2, -1, 3], sizes, expandable_segments=True)
    assert result.allocated_end_bytes == 19 * MIB


def test_expandable_segments_join_what_plain_segments_cannot():
    # 30 and 10 MiB freed make 40 in one range; plain segments need another 40.
    events, sizes = [1, 2, -1, -2, 3], [30 * MIB, 10 * MIB, 40 * MIB]
    assert replay(events, sizes, expandable_segments=True).reserved_peak_bytes == 40 * MIB
    assert replay(events, sizes).reserved_peak_bytes == 80 * MIB


def test_expandable_segments_spare_the_block_that_can_grow():
    # 60 MiB mapped: 30 free, 2 live, 28 free at the end. 26 MiB fit the 28 best, but those can
    # grow, so the 30 are taken; for 29 more the 28 grow by a page, to 80 MiB in all. Plain best
    # fit would have put the 26 into the 28 and the 29 into the 30, without a new page.
    events = [1, 2, 3, -3, -1, 4, 5]
    sizes = [30 * MIB, 2 * MIB, 28 * MIB, 26 * MIB, 29 * MIB]
    assert replay(events, sizes, expandable_segments=True).reserved_peak_bytes == 80 * MIB


def test_expandable_segments_empty_cache_unmaps_whole_pages():
    # 50 MiB on three pages of 20; the first 30 are freed: only the first page is entirely free.
    events, sizes = [1, 2, -1, EMPTY_CACHE], [30 * MIB, 20 * MIB, 18 * MIB]
    result = replay(events, sizes, expandable_segments=True)
    assert ends(result) == (20 * MIB, 40 * MIB)
    # 18 MiB more fit neither 10 MiB that are free: the first page, the lowest, is mapped again.
    result = replay([*events, 3], sizes, expandable_segments=True)
    assert ends(result) == (38 * MIB, 60 * MIB)
    assert replay([1, -1, EMPTY_CACHE], sizes, expandable_segments=True).segments == 0


def test_expandable_segments_run_out_of_memory():
    sizes = [30 * MIB, 50 * MIB]
    limit = {"expandable_segments": True, "capacity_bytes": 60 * MIB}
    assert replay([1, 2], sizes, **limit).oom_event == 1
    assert replay([1, -1, 2], sizes, **limit).oom_event is None


def test_storage_may_be_allocated_again():
    assert ends(replay([1, -1, 1], [512])) == (512, 2 * MIB)


@pytest.mark.parametrize(
    ("events", "sizes", "options", "message"),
    [
        ([1, 1], [512], {}, "event 1 allocates storage 1, which is live"),
        ([1, 1], [0], {}, "event 1 allocates storage 1, which is live"),
        ([-1], [512], {}, "event 0 frees storage 1, which is not live"),
        ([1, -1, -1], [0], {}, "event 2 frees storage 1, which is not live"),
        ([2], [512], {}, "beyond the 1 storages"),
        ([-2], [512], {}, "beyond the 1 storages"),
        ([1], [-1], {}, "negative size"),
        ([1], [1], {"max_split_size_bytes": 0}, "whole MiB above 20"),
        ([1], [1], {"max_split_size_bytes": 20 * MIB}, "whole MiB above 20"),
        ([1], [1], {"max_split_size_bytes": 21 * MIB + 1}, "whole MiB above 20"),
        (
            [1],
            [1],
            {"max_split_size_bytes": 21 * MIB, "expandable_segments": True},
            "no expandable segments",
        ),
    ],
)
def test_bad_input_is_named(events, sizes, options, message):
    with pytest.raises(ValueError, match=message):
        replay(events, sizes, **options)
