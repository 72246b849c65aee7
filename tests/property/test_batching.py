"""Whatever the lengths: order statistics, padding and packing stay within what must hold."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftadvisor.cost_model.batching import expected_longest, padding_share, sorted_tokens
from peftadvisor.cost_model.packing import best_fit_rows, wrapped_rows
from peftadvisor.data.lengths import Histogram

found = st.lists(st.integers(1, 40), min_size=1, max_size=60)
batches = st.integers(1, 70)


def of(lengths: list[int]) -> Histogram:
    return Histogram.of(Counter(lengths))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_longest_is_the_mean_over_all_batches(lengths: list[int], batch: int) -> None:
    drawn = [max(chosen) for chosen in product(lengths, repeat=batch)]
    assert expected_longest(of(lengths), batch) == pytest.approx(sum(drawn) / len(drawn))


@given(found, batches)
def test_longest_lies_between_mean_and_longest_and_rises(lengths: list[int], batch: int) -> None:
    histogram = of(lengths)
    most = expected_longest(histogram, batch)
    assert histogram.mean - 1e-9 <= most <= histogram.longest + 1e-9
    assert most <= expected_longest(histogram, batch + 1) + 1e-9
    assert -1e-9 <= padding_share(histogram, batch) < 1


@given(found, batches)
def test_sorted_batches_hold_all_and_pad_least(lengths: list[int], batch: int) -> None:
    made = sorted_tokens(of(lengths), batch)
    assert sum(lengths) <= made <= len(lengths) * max(lengths)
    if len(lengths) % batch == 0:  # a short batch may do better elsewhere than at the end
        parts = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
        assert made <= sum(batch * max(part) for part in parts)


def one_by_one(lengths: list[int], row_len: int) -> int:
    """Best fit as it is defined: each length in turn to the row with least room for it."""
    rooms: list[int] = []
    for length in sorted((min(length, row_len) for length in lengths), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else row_len) - length)
    return len(rooms)


@given(found, st.integers(1, 60))
def test_best_fit_is_that_of_one_by_one(lengths: list[int], row_len: int) -> None:
    assert best_fit_rows(of(lengths), row_len) == one_by_one(lengths, row_len)


@given(st.lists(st.sampled_from([3, 7, 11, 12, 13, 25]), min_size=20, max_size=300))
def test_best_fit_of_many_alike(lengths: list[int]) -> None:
    assert best_fit_rows(of(lengths), 40) == one_by_one(lengths, 40)


@given(found, st.integers(40, 90), batches)
def test_packing_takes_no_more_than_padding(lengths: list[int], row_len: int, batch: int) -> None:
    histogram = of(lengths)
    whole, wrapped = best_fit_rows(histogram, row_len), wrapped_rows(histogram, row_len)
    # Nothing is lost, a row each is enough, and no two rows could be one.
    assert sum(lengths) <= wrapped * row_len < sum(lengths) + row_len
    assert wrapped <= whole <= len(lengths)
    assert whole < 2 * sum(lengths) / row_len + 1
    # Padding to the longest of a batch holds at least the tokens themselves, so laid end to end
    # they take at most one row, not quite full, more.
    padded = len(lengths) * expected_longest(histogram, batch)
    assert wrapped * row_len < padded + row_len + 1e-6
