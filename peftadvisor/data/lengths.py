"""How long the examples of a data set are, in tokens: counted, not guessed, and kept compact.

Pairs of source and target are kept together, so that cutting to a limit, and what is learned
after it, follow without reading the file again.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, count
from typing import Any

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """How many lengths lie from ``low`` to ``high``, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often each length in tokens occurs; ``values`` rise, ``counts`` are above 0."""

    values: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, counted: Mapping[int, int]) -> Histogram:
        """From how often each length was met."""
        values = tuple(sorted(counted))
        return cls(values=values, counts=tuple(counted[value] for value in values))

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.counts)

    @property
    def tokens(self) -> int:
        """Their sum."""
        return sum(value * n for value, n in zip(self.values, self.counts, strict=True))

    @property
    def mean(self) -> float:
        """Tokens of an average one."""
        return self.tokens / self.count

    @property
    def longest(self) -> int:
        """Tokens of the longest."""
        return self.values[-1]

    def quantile(self, share: float) -> int:
        """The smallest length that at least this share of all does not exceed."""
        reached = list(accumulate(self.counts))
        rank = max(1, math.ceil(share * reached[-1] - 1e-9))
        return self.values[bisect_left(reached, rank)]

    def buckets(self, most: int = 8) -> tuple[Bucket, ...]:
        """Ranges of equal width up to the 99th percentile, and one for the tail beyond.

        The width is 1, 2 or 5 times a power of ten, the least that takes ``most`` ranges or fewer.
        """
        width, first, body = _ranges(self.values[0], self.quantile(0.99), most)
        met = Counter[int]()
        for value, n in zip(self.values, self.counts, strict=True):
            met[min(max(value - 1, 0) // width, first + body)] += n
        made = [
            Bucket(low=i * width + 1, high=(i + 1) * width, count=met[i])
            for i in range(first, first + body)
        ]
        if tail := met[first + body]:
            made.append(Bucket(low=made[-1].high + 1, high=self.longest, count=tail))
        return tuple(made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of every sequence of a data set, as unique ``pairs`` of source and target.

    Decoder-only models see both in one row, the target being what is learned (all of a plain
    text, the completion of a prompt, what the assistant says); encoder-decoders see the source in
    the encoder and the target in the decoder. ``examples`` are lines of the file: those with a
    chosen and a rejected answer make two sequences each. ``shapes`` says as what the lines were
    read, ``notes`` what was left out or approximated.
    """

    file: str
    encoder_decoder: bool
    examples: int
    pairs: tuple[Pair, ...]
    counts: tuple[int, ...]
    shapes: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sequences(self) -> int:
        """Rows that the model sees in an epoch."""
        return sum(self.counts)

    @property
    def sequences_per_example(self) -> float:
        """Two where answers are compared, else one."""
        return self.sequences / self.examples

    @property
    def rows(self) -> Histogram:
        """What fills a row of a batch: source and target, of encoder-decoders the source."""
        return self.sources if self.encoder_decoder else self._histogram(sum)

    @property
    def sources(self) -> Histogram:
        """The sources alone."""
        return self._histogram(lambda pair: pair[0])

    @property
    def targets(self) -> Histogram:
        """The targets alone."""
        return self._histogram(lambda pair: pair[1])

    @property
    def tokens(self) -> int:
        """Of an epoch, source and target, without padding."""
        return sum(n * (s + t) for (s, t), n in self._counted())

    @property
    def learned(self) -> int:
        """Tokens of an epoch that carry a loss."""
        return sum(n * target for (_, target), n in self._counted())

    def cut(self, seq_len: int, target_len: int) -> Lengths:
        """Every row cut at its end to ``seq_len`` tokens, of encoder-decoders also the target."""
        limit = _cut_apart if self.encoder_decoder else _cut_row
        met = Counter[Pair]()
        for pair, n in self._counted():
            met[limit(pair, seq_len, target_len)] += n
        pairs, counts = unique(met)
        return replace(self, pairs=pairs, counts=counts)

    def beyond(self, seq_len: int, target_len: int) -> int:
        """How many sequences ``cut`` shortens."""
        limit = _cut_apart if self.encoder_decoder else _cut_row
        return sum(n for pair, n in self._counted() if limit(pair, seq_len, target_len) != pair)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: totals, quantiles and the histogram of rows."""
        return {
            "file": self.file,
            "examples": self.examples,
            "sequences": self.sequences,
            "tokens": self.tokens,
            "learned_tokens": self.learned,
            "rows": _summary(self.rows),
            "targets": _summary(self.targets) if self.encoder_decoder else None,
            "shapes": dict(self.shapes),
            "notes": list(self.notes),
        }

    def _counted(self) -> Iterable[tuple[Pair, int]]:
        return zip(self.pairs, self.counts, strict=True)

    def _histogram(self, key: Callable[[Pair], int]) -> Histogram:
        met = Counter[int]()
        for pair, n in self._counted():
            met[key(pair)] += n
        return Histogram.of(met)


def unique(met: Mapping[Pair, int]) -> tuple[tuple[Pair, ...], tuple[int, ...]]:
    """The pairs in order and how often each was met, as ``Lengths`` keeps them."""
    pairs = tuple(sorted(met))
    return pairs, tuple(met[pair] for pair in pairs)


def _cut_row(pair: Pair, seq_len: int, _: int) -> Pair:
    source = min(pair[0], seq_len)
    return source, min(pair[1], seq_len - source)


def _cut_apart(pair: Pair, seq_len: int, target_len: int) -> Pair:
    return min(pair[0], seq_len), min(pair[1], target_len)


def _summary(lengths: Histogram) -> dict[str, Any]:
    return {
        "mean": lengths.mean,
        "p50": lengths.quantile(0.5),
        "p90": lengths.quantile(0.9),
        "p99": lengths.quantile(0.99),
        "longest": lengths.longest,
        "buckets": [asdict(bucket) for bucket in lengths.buckets()],
    }


def _ranges(low: int, high: int, most: int) -> tuple[int, int, int]:
    """Width, number of the first and how many ranges, counted from 1, hold ``low`` to ``high``."""
    widths = (factor * 10**power for power in count() for factor in (1, 2, 5))
    tried = ((width, max(low - 1, 0) // width, -(-high // width)) for width in widths)
    return next(
        (width, first, max(1, end - first))
        for width, first, end in tried
        if max(1, end - first) <= most
    )
