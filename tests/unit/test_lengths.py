"""Histograms of lengths, and what cutting leaves of pairs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftadvisor.data.lengths import Bucket, Histogram, Lengths

# Ten lengths: 1 1 1 1 2 2 2 3 3 20.
TEN = Histogram.of({20: 1, 1: 4, 2: 3, 3: 2})


def lengths(pairs: dict[tuple[int, int], int], encoder_decoder: bool = False) -> Lengths:
    return Lengths(
        file="data.jsonl",
        encoder_decoder=encoder_decoder,
        examples=sum(pairs.values()),
        pairs=tuple(pairs),
        counts=tuple(pairs.values()),
    )


def test_totals() -> None:
    assert TEN.values == (1, 2, 3, 20)
    assert (TEN.count, TEN.tokens, TEN.mean, TEN.longest) == (10, 36, 3.6, 20)


@pytest.mark.parametrize(
    ("share", "length"),
    # The 4th of ten is still 1, the 5th is 2, the 7th is 2, the 9th is 3.
    [(0, 1), (0.4, 1), (0.41, 2), (0.5, 2), (0.7, 2), (0.9, 3), (0.91, 20), (1, 20)],
)
def test_quantiles(share: float, length: int) -> None:
    assert TEN.quantile(share) == length


def test_buckets_hold_the_body_and_the_tail_apart() -> None:
    # 99 of 1 to 99 and one of 5000: the 99th percentile is 99, so 8 ranges need a width of 20
    # (10 would take ten); 1-20 to 81-100 hold 20, 20, 20, 20 and 19, the last range the rest.
    found = Histogram.of({**dict.fromkeys(range(1, 100), 1), 5000: 1}).buckets()
    assert [(b.low, b.high, b.count) for b in found] == [
        (1, 20, 20),
        (21, 40, 20),
        (41, 60, 20),
        (61, 80, 20),
        (81, 100, 19),
        (101, 5000, 1),
    ]
    assert Histogram.of({7: 3}).buckets() == (Bucket(low=7, high=7, count=3),)
    # 305 to 512 in ranges of 50: from 301 on there are five.
    found = Histogram.of({305: 1, 512: 2}).buckets()
    assert [(b.low, b.high, b.count) for b in found] == [
        (301, 350, 1),
        (351, 400, 0),
        (401, 450, 0),
        (451, 500, 0),
        (501, 550, 2),
    ]


counted = st.dictionaries(st.integers(1, 5000), st.integers(1, 50), min_size=1, max_size=40)


@given(counted, st.integers(1, 12))
def test_buckets_hold_every_length_once(found: dict[int, int], most: int) -> None:
    histogram = Histogram.of(found)
    buckets = histogram.buckets(most)
    assert sum(bucket.count for bucket in buckets) == histogram.count
    assert len(buckets) <= most + 1
    assert all(a.high + 1 == b.low for a, b in zip(buckets, buckets[1:], strict=False))
    for bucket in buckets:
        inside = sum(n for length, n in found.items() if bucket.low <= length <= bucket.high)
        assert inside == bucket.count


def test_one_row_holds_source_and_target() -> None:
    found = lengths({(3, 2): 4, (0, 5): 1})
    assert found.rows == Histogram(values=(5,), counts=(5,))
    assert found.targets == Histogram(values=(2, 5), counts=(4, 1))
    assert (found.tokens, found.learned, found.sequences) == (25, 13, 5)


def test_two_rows_are_apart() -> None:
    found = lengths({(3, 2): 4, (1, 5): 1}, encoder_decoder=True)
    assert found.rows == Histogram(values=(1, 3), counts=(1, 4))
    assert found.targets == Histogram(values=(2, 5), counts=(4, 1))


def test_a_row_is_cut_at_its_end() -> None:
    # To 4: 3 + 2 keeps one learned token, 6 + 1 none, 1 + 2 both.
    found = lengths({(3, 2): 1, (6, 1): 1, (1, 2): 1})
    kept = found.cut(4, 1)
    assert dict(zip(kept.pairs, kept.counts, strict=True)) == {(1, 2): 1, (3, 1): 1, (4, 0): 1}
    assert (kept.tokens, kept.learned, found.beyond(4, 1)) == (11, 3, 2)
    assert found.beyond(7, 1) == 0
    assert found.cut(7, 1).rows == found.rows


def test_two_rows_are_cut_apart_and_like_ones_joined() -> None:
    found = lengths({(3, 2): 1, (6, 9): 2, (4, 9): 1}, encoder_decoder=True)
    kept = found.cut(4, 5)
    assert dict(zip(kept.pairs, kept.counts, strict=True)) == {(3, 2): 1, (4, 5): 3}
    assert found.beyond(4, 5) == 3


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 50), st.integers(0, 50)), st.integers(1, 5), min_size=1
    ),
    st.integers(1, 60),
    st.integers(1, 60),
    st.booleans(),
)
def test_cutting_loses_what_is_beyond_and_no_row(
    pairs: dict[tuple[int, int], int], seq_len: int, target_len: int, apart: bool
) -> None:
    found = lengths(pairs, apart)
    kept = found.cut(seq_len, target_len)
    assert kept.sequences == found.sequences
    assert kept.rows.longest <= seq_len
    assert kept.learned <= found.learned
    assert (kept.tokens < found.tokens) == (found.beyond(seq_len, target_len) > 0)
    assert kept.cut(seq_len, target_len) == kept
    if not apart:
        lost = sum(n * max(0, v - seq_len) for v, n in zip(*_counted(found.rows), strict=True))
        assert found.tokens - kept.tokens == lost


def _counted(rows: Histogram) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return rows.values, rows.counts


def test_travels_as_json() -> None:
    found = lengths({(3, 2): 4}).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["rows"]["longest"] == 5
    assert found["targets"] is None
    assert lengths({(3, 2): 4}, True).to_dict()["targets"]["mean"] == 2
