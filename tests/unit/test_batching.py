"""What lengths mean for batches, in numbers worked out by hand."""

from __future__ import annotations

import json

import pytest

from peftadvisor.cost_model.batching import (
    Rows,
    batching,
    expected_longest,
    job_of,
    padding_share,
    sorted_tokens,
)
from peftadvisor.cost_model.packing import best_fit_rows, wrapped_rows
from peftadvisor.data.lengths import Histogram, Lengths
from peftadvisor.specs import Job, TrainingSpec

# 1 3 3 4: F is 1/4, 3/4 and 1 there.
FOUR = Histogram.of({1: 1, 3: 2, 4: 1})
PAIRS = ((0, 1), (1, 2), (2, 1), (2, 2))


def lengths(encoder_decoder: bool = False, examples: int = 4) -> Lengths:
    return Lengths(
        file="data.jsonl",
        encoder_decoder=encoder_decoder,
        examples=examples,
        pairs=PAIRS,
        counts=(1, 1, 1, 1),
    )


def test_longest_of_a_batch() -> None:
    assert expected_longest(FOUR, 1) == FOUR.mean == 11 / 4
    # of two: 1 · 1/16 + 3 · (9/16 - 1/16) + 4 · (1 - 9/16)
    assert expected_longest(FOUR, 2) == (1 + 3 * 8 + 4 * 7) / 16
    assert padding_share(FOUR, 2) == 1 - (11 / 4) / (53 / 16)
    assert padding_share(FOUR, 1) == 0


def test_sorted_batches() -> None:
    assert sorted_tokens(FOUR, 1) == 11
    assert sorted_tokens(FOUR, 2) == 2 * 4 + 2 * 3  # 4 3 | 3 1
    assert sorted_tokens(FOUR, 3) == 3 * 4 + 1  # 4 3 3 | 1
    assert sorted_tokens(FOUR, 9) == 4 * 4


@pytest.mark.parametrize(
    ("found", "row_len", "rows"),
    [
        ({5: 1, 2: 1, 3: 1, 1: 1}, 4, 3),  # 5 is cut to 4 | 3 1 | 2
        ({4: 3}, 4, 3),
        ({1: 10}, 4, 3),  # 1 1 1 1 | 1 1 1 1 | 1 1
        ({6: 2, 4: 2, 3: 2, 2: 3}, 10, 4),  # 6 4 | 6 4 | 3 3 2 2 | 2
        ({5: 1, 4: 1, 3: 2, 2: 1}, 9, 2),  # 5 4 | 3 3 2
        ({0: 5, 2: 1}, 4, 1),  # what holds no token takes no room
    ],
)
def test_best_fit(found: dict[int, int], row_len: int, rows: int) -> None:
    assert best_fit_rows(Histogram.of(found), row_len) == rows


def test_best_fit_takes_the_tightest_row() -> None:
    # Of 10: 7 | 6 | then 3 fits both and goes to the 7, which is left full, and 4 to the 6.
    assert best_fit_rows(Histogram.of({7: 1, 6: 1, 4: 1, 3: 1}), 10) == 2


def test_wrapped() -> None:
    assert wrapped_rows(FOUR, 4) == 3  # 11 tokens
    assert wrapped_rows(FOUR, 11) == 1


def test_a_data_set_in_batches() -> None:
    # Rows of 1 3 3 4, cut to 3: 1 3 3 3, the 2 → 2 losing one learned token. Of two, the longest
    # is 1 · 1/16 + 3 · 15/16 = 46/16; four rows take 11.5 tokens for the ten that are kept.
    found = batching(lengths(), TrainingSpec(micro_batch_size=2, seq_len=3))
    assert found.rows == Rows(mean=10 / 4, expected_longest=46 / 16, longest=3)
    assert found.targets is None
    assert (found.cut_sequences, found.lost_tokens) == (1, 1)
    assert (found.padded_tokens, found.sorted_tokens) == (11.5, 12)  # sorted: 3 3 | 3 1
    assert found.padding_share == 1 - 10 / 11.5
    assert found.sorted_padding_share == 1 - 10 / 12
    assert found.packed is not None
    # Whole: 3 | 3 | 3 | 1; wrapped: the 11 tokens that were read.
    assert (found.packed.rows, found.packed.wrapped_rows, found.packed.tokens) == (4, 4, 12)
    assert found.packed.gain == 11.5 / 12


def test_encoder_decoders_pad_both_sides() -> None:
    # Sources 0 1 2 2: of two, 1 · (4/16 - 1/16) + 2 · 12/16 = 27/16.
    # Targets 1 2 1 2: 1 · 1/4 + 2 · 3/4.
    found = batching(lengths(True), TrainingSpec(micro_batch_size=2, seq_len=9, target_len=9))
    assert found.rows.expected_longest == 27 / 16
    assert found.targets == Rows(mean=1.5, expected_longest=1.75, longest=2)
    assert found.padded_tokens == 4 * (27 / 16 + 1.75)
    assert found.sorted_tokens is found.packed is found.sorted_padding_share is None


def test_two_answers_are_two_rows_of_a_batch() -> None:
    found = batching(lengths(examples=2), TrainingSpec(micro_batch_size=1, seq_len=9))
    assert found.batch_rows == 2
    assert found.rows.expected_longest == expected_longest(FOUR, 2)


def test_job() -> None:
    assert job_of(lengths(), task="instruction", epochs=3) == Job(
        task="instruction",
        examples=4,
        tokens_per_example=11 / 4,
        learned_per_example=6 / 4,
        epochs=3,
    )
    assert job_of(lengths(examples=2), steps=10).tokens_per_example == 11 / 2


@pytest.mark.parametrize("encoder_decoder", [False, True])
def test_travels_as_json(encoder_decoder: bool) -> None:
    found = batching(lengths(encoder_decoder), TrainingSpec(micro_batch_size=2)).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert (found["packed"] is None) == encoder_decoder
