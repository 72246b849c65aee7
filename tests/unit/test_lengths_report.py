"""The lengths of a data set as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftadvisor.cost_model.batching import batching
from peftadvisor.data.lengths import Lengths
from peftadvisor.report.lengths import render
from peftadvisor.specs import TrainingSpec

# 60 rows of 90 + 10 tokens, 35 of 240 + 60, 5 of 900 + 100.
LENGTHS = Lengths(
    file="data.jsonl",
    encoder_decoder=False,
    examples=100,
    pairs=((90, 10), (240, 60), (900, 100)),
    counts=(60, 35, 5),
    shapes=(("messages", 90), ("text", 10)),
    notes=("a note",),
)
TRAINING = TrainingSpec(micro_batch_size=2, seq_len=500, target_len=50)


def test_a_decoder() -> None:
    # 60 · 100 + 35 · 300 + 5 · 1000 = 21.5 K tokens, 600 + 2100 + 500 learned. Cut to 500: 2.5 K
    # lost, 19 K kept. The longer of two: 100 · 0.36 + 300 · (0.9025 - 0.36) + 500 · 0.0975 = 247.5,
    # so 24.75 K padded tokens an epoch, 23.2 % of them padding. Sorted: 500 500 | 500 500 |
    # 500 300 | 34 times 300 | 60 times 100: 2000 + 1000 + 10200 + 6000 = 19.2 K, 1.0 % padding.
    # Packed into 500: 5 full, 35 of 300 + 100 + 100 use 70 of 60 hundreds: 30 with two, 5 with
    # none; so 40 rows, 20 K tokens: 1.24 times fewer. Wrapped: 21.5 K / 500 = 43.
    assert render(batching(LENGTHS, TRAINING), 80, False) == (
        "100 examples in data.jsonl: 21.50K tokens, 3.20K of them learned\n"
        "    1–200  60.0 %  ████████████████████████████████████████\n"
        "  201–400  35.0 %  ███████████████████████\n"
        "  401–600   0.0 %\n"
        "  601–800   0.0 %\n"
        "801–1,000   5.0 %  ███\n"
        "Lengths  mean 215.0 tokens; 50 % up to 100, 90 % up to 300, 99 % up to 1,000,\n"
        "         longest 1,000\n"
        "Cut      5 of 100 (5.0 %) to 500 tokens; 2.50K tokens (11.6 %) are lost\n"
        "Padded   batches of 2 drawn at random: the longest row has 247.5 tokens on\n"
        "         average, 500 at most; 23.2 % of all tokens are padding\n"
        "Sorted   batches of like lengths: 1.0 % of all tokens are padding\n"
        "Packed   40 rows of 500 tokens, examples whole (43 if cut anywhere): 1.24 times\n"
        "         fewer tokens than padded\n"
        "Read as  messages (90); text (10)\n"
        "• a note\n"
    )


def test_an_encoder_decoder() -> None:
    text = render(batching(replace(LENGTHS, encoder_decoder=True), TRAINING), 80, False)
    assert "Sources  mean 183.0 tokens; 50 % up to 90" in text
    assert "\nTargets\n" in text
    assert "Targets  mean 32.0 tokens; 50 % up to 10" in text
    assert "Cut      40 of 100 (40.0 %) to 500 → 50 tokens" in text
    # Sources 90 · 0.36 + 240 · (0.9025 - 0.36) + 500 · 0.0975; targets 10 · 0.36 + 50 · 0.64.
    padded = "211.4 tokens on average, 500 at most → 35.6 tokens on average, 50 at most; "
    assert padded in text.replace("\n         ", " ")
    assert "Packed" not in text
    assert "Sorted" not in text


def test_what_need_not_be_said() -> None:
    text = render(batching(replace(LENGTHS, examples=50), TrainingSpec(seq_len=2000)), 60, False)
    assert text.startswith("50 examples, 100 sequences in data.jsonl: ")
    assert "Cut      none is longer than 2,000 tokens" in text
    # Two answers of one example are two rows.
    assert "batches of 2 drawn at random" in text


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_longer_than_the_page(width: int) -> None:
    text = render(batching(LENGTHS, TRAINING), width, False)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b[" in render(batching(LENGTHS, TRAINING), width, True)


def test_packing_can_lose_and_a_file_name_paints_nothing() -> None:
    few = Lengths(file="a\x1b[2Jb", encoder_decoder=False, examples=1, pairs=((0, 5),), counts=(1,))
    text = render(batching(few, TrainingSpec(seq_len=10)), 80, False)
    assert text.startswith("1 example in a?[2Jb: 5 tokens, 5 of them learned\n5  100.0 %  ███")
    packed = "1 row of 10 tokens, examples whole (1 if cut anywhere): 2.00 times more tokens"
    assert packed in text.replace("\n         ", " ")
