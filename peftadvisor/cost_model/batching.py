"""What lengths mean for batches: how long the longest of a batch is, what padding costs, packing.

A padded batch of b rows is b times its longest row. Legend: F(l) is the share of rows that are
at most l tokens long, N rows make an epoch of T tokens, L is the length that rows are cut to.

    longest of a random batch   E[max] = Σ_l (1 - F(l)^b)              tokens; order statistics of
                                       = Σ_i l_i · (F(l_i)^b - F(l_i-1)^b)  b draws with replacement
    padded tokens of an epoch   N · E[max]
    share of padding            1 - T / (N · E[max])
    packing gain                N · E[max] / (rows · L)                rows of ``packing``

An epoch draws without replacement, which is the same to within b/N. Every sequence is in some
batch: the longest batch of an epoch holds the longest sequence, and memory must suffice for it,
while time goes with the mean. GPUs that wait for each other wait for the longest row of all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from peftadvisor.cost_model.packing import best_fit_rows, wrapped_rows
from peftadvisor.data.lengths import Histogram, Lengths
from peftadvisor.specs import Job, Task, TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One side of a padded batch: tokens of a mean row, of the longest of a batch, of any."""

    mean: float
    expected_longest: float
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An epoch in full rows: how many rows, their tokens, and padded tokens over these.

    ``wrapped_rows`` is without regard to where sequences end. A gain below 1 is a loss.
    """

    rows: int
    wrapped_rows: int
    row_len: int
    gain: float

    @property
    def tokens(self) -> int:
        """Of an epoch, what room is left in rows included."""
        return self.rows * self.row_len


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """A data set in batches of ``batch_rows`` rows, cut to ``seq_len`` (and ``target_len``) tokens.

    ``lengths`` are as they were read, ``kept`` what cutting leaves; ``padded_tokens`` are an
    epoch's in random batches, ``sorted_tokens`` in batches of like lengths (all sorted: the best
    that grouping by length can do). None for encoder-decoders, which sort by source alone and
    are not packed.
    """

    lengths: Lengths
    kept: Lengths
    batch_rows: int
    seq_len: int
    target_len: int
    cut_sequences: int
    rows: Rows
    targets: Rows | None
    padded_tokens: float
    sorted_tokens: int | None
    packed: Packed | None

    @property
    def padding_share(self) -> float:
        """Of what random batches hold."""
        return 1 - self.kept.tokens / self.padded_tokens

    @property
    def sorted_padding_share(self) -> float | None:
        """Of what batches of like lengths hold."""
        return None if self.sorted_tokens is None else 1 - self.kept.tokens / self.sorted_tokens

    @property
    def lost_tokens(self) -> int:
        """Of an epoch, cut off."""
        return self.lengths.tokens - self.kept.tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "lengths": self.lengths.to_dict(),
            "batch_rows": self.batch_rows,
            "seq_len": self.seq_len,
            "target_len": self.target_len if self.targets else None,
            "cut_sequences": self.cut_sequences,
            "lost_tokens": self.lost_tokens,
            "kept_tokens": self.kept.tokens,
            "rows": asdict(self.rows),
            "targets": asdict(self.targets) if self.targets else None,
            "padded_tokens": self.padded_tokens,
            "padding_share": self.padding_share,
            "sorted_tokens": self.sorted_tokens,
            "sorted_padding_share": self.sorted_padding_share,
            "packed": {**asdict(self.packed), "tokens": self.packed.tokens}
            if self.packed
            else None,
        }


def batching(lengths: Lengths, training: TrainingSpec) -> Batching:
    """The data set in batches of this training, whose lengths are the limits."""
    kept = lengths.cut(training.seq_len, training.target_len)
    batch = max(1, round(training.micro_batch_size * lengths.sequences_per_example))
    sides = [kept.rows, *([kept.targets] if lengths.encoder_decoder else [])]
    made = [_rows(side, batch) for side in sides]
    padded = kept.sequences * sum(side.expected_longest for side in made)
    one_row = not lengths.encoder_decoder
    return Batching(
        lengths=lengths,
        kept=kept,
        batch_rows=batch,
        seq_len=training.seq_len,
        target_len=training.target_len,
        cut_sequences=lengths.beyond(training.seq_len, training.target_len),
        rows=made[0],
        targets=None if one_row else made[1],
        padded_tokens=padded,
        sorted_tokens=sorted_tokens(kept.rows, batch) if one_row else None,
        packed=_packed(lengths, kept, training.seq_len, padded) if one_row else None,
    )


def expected_longest(lengths: Histogram, batch: int) -> float:
    """Tokens of the longest of ``batch`` rows drawn at random: E[max] of the empirical F."""
    values = np.asarray(lengths.values, float)
    reached = np.cumsum(lengths.counts) / lengths.count
    return float(np.dot(values, np.diff(reached**batch, prepend=0.0)))


def padding_share(lengths: Histogram, batch: int) -> float:
    """What share of a random batch's tokens is padding."""
    return 1 - lengths.mean / expected_longest(lengths, batch)


def sorted_tokens(lengths: Histogram, batch: int) -> int:
    """Tokens of an epoch, padding included, when batches are cut from the sorted rows.

    Each batch is as long as its first row, from the longest down; the last may have fewer rows.
    transformers' ``group_by_length`` sorts 50 batches at a time and comes close to it.
    """
    starts = np.arange(0, lengths.count, batch)
    reached = np.cumsum(lengths.counts[::-1])
    longest = np.asarray(lengths.values[::-1])[np.searchsorted(reached, starts, side="right")]
    rows = np.minimum(batch, lengths.count - starts)
    return int(np.dot(longest, rows))


def job_of(
    lengths: Lengths,
    *,
    task: Task | None = None,
    epochs: float | None = None,
    steps: int | None = None,
) -> Job:
    """The job of learning this data set; pass what ``Lengths.cut`` keeps.

    An example with two answers has the tokens of both.
    """
    return Job(
        task=task,
        examples=lengths.examples,
        tokens_per_example=lengths.tokens / lengths.examples,
        learned_per_example=lengths.learned / lengths.examples if lengths.learned else None,
        epochs=epochs,
        steps=steps,
    )


def _rows(lengths: Histogram, batch: int) -> Rows:
    return Rows(
        mean=lengths.mean,
        expected_longest=expected_longest(lengths, batch),
        longest=lengths.longest,
    )


def _packed(lengths: Lengths, kept: Lengths, row_len: int, padded_tokens: float) -> Packed:
    """Of wrapped rows nothing is cut, so they take the lengths as they were read."""
    rows = best_fit_rows(kept.rows, row_len)
    return Packed(
        rows=rows,
        wrapped_rows=wrapped_rows(lengths.rows, row_len),
        row_len=row_len,
        gain=padded_tokens / (rows * row_len),
    )
