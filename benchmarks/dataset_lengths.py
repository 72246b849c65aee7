"""How long it takes to count the tokens of a data set.

    python benchmarks/dataset_lengths.py [--lines 50000] [--words 90] [--shape text|pair|chat]

Writes a file of random words whose lengths spread as those of instructions do (log-normal, median
``--words``), trains a byte-level BPE of 16,000 tokens on some of it, and prints seconds, seconds of
processor time, and tokens per second, then what follows from the lengths and how long that took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from peftadvisor.cost_model.batching import batching
from peftadvisor.integrations.datasets import DatasetFile, read_lengths
from peftadvisor.report.lengths import render
from peftadvisor.specs import TrainingSpec

LETTERS = "etaoinshrdlu"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
SHAPES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "text": lambda a, b: {"text": f"{a} {b}"},
    "pair": lambda a, b: {"prompt": a, "completion": b},
    "chat": lambda a, b: {
        "messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]
    },
}


class Words:
    """Texts of random words, the n-th of which is met in proportion to 1/n."""

    def __init__(self) -> None:
        self._random = random.Random(0)
        self._words = [
            "".join(self._random.choices(LETTERS, k=self._random.randint(2, 9)))
            for _ in range(20_000)
        ]
        self._sums = [0.0]
        for n in range(1, len(self._words) + 1):
            self._sums.append(self._sums[-1] + 1 / n)

    def text(self, count: int) -> str:
        chosen = self._random.choices(self._words, cum_weights=self._sums[1:], k=count)
        return " ".join(chosen)

    def count(self, median: int) -> int:
        return 1 + int(median * self._random.lognormvariate(0, 0.7))


def write(path: Path, words: Words, lines: int, median: int, shape: str) -> None:
    with path.open("w") as file:
        for _ in range(lines):
            source, target = words.text(words.count(median // 3)), words.text(words.count(median))
            file.write(json.dumps(SHAPES[shape](source, target)) + "\n")


def train(folder: Path, texts: Iterator[str]) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def main() -> None:
    """Write, train, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--words", type=int, default=90)
    parser.add_argument("--shape", choices=SHAPES, default="text")
    asked = parser.parse_args()
    words = Words()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "data.jsonl"
        write(file, words, asked.lines, asked.words, asked.shape)
        train(folder, (words.text(200) for _ in range(2000)))
        size = file.stat().st_size
        started, worked = time.perf_counter(), time.process_time()
        given = DatasetFile(path=str(file), tokenizer=str(folder))
        lengths = read_lengths(given, lambda _: None)
        took, worked = time.perf_counter() - started, time.process_time() - worked
        started = time.perf_counter()
        found = batching(lengths, TrainingSpec(micro_batch_size=4, seq_len=512))
        followed = time.perf_counter() - started
    print(render(found, 100, False))
    print(
        f"{asked.lines:,} lines ({asked.shape}, {size / 1e6:.0f} MB, {lengths.tokens:,} tokens): "
        f"{took:.1f} s on {os.cpu_count()} cores, {worked:.1f} s of processor time, "
        f"{lengths.tokens / worked:,.0f} tokens per processor second; "
        f"batching {1000 * followed:.0f} ms"
    )
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
