"""Tokens counted by the tokenizers library alone are those that transformers makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

from peftadvisor.integrations.datasets import DatasetFile, read_lengths  # noqa: E402

TEXTS = [
    "Wer fremde Sprachen nicht kennt, weiß nichts von seiner eigenen.",
    "def f(x):\n    return x ** 2  # 🙂\n",
    "  two  spaces\tand\ttabs  ",
    "日本語の文章もある。",
    "closed</s>",
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}\n  {%- if m.role == 'system' %}\n"
    "<<{{ m.content | trim }}>>\n  {%- else %}\n[{{ m.role }}] {{ m.content }}"
    "{% generation %}{{ eos_token }}{% endgeneration %}\n  {%- endif %}\n{% endfor %}"
)
TALKS = [
    [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": TEXTS[1]}],
    [{"role": "system", "content": TEXTS[2]}, {"role": "user", "content": TEXTS[3]}],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A byte-level BPE with a start token, saved by transformers itself, limits and all."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(TEXTS * 3, trainer)
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    whole = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    whole.chat_template = TEMPLATE
    whole(TEXTS[0], truncation=True, max_length=3)  # leaves its limit in the file
    whole.save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def tokens(folder: Path, rows: list[Any], **fields: Any) -> list[tuple[int, int]]:
    """Source and target of every row, one file each."""
    found = []
    for row in rows:
        path = folder / "rows.jsonl"
        path.write_text(json.dumps(row))
        file = DatasetFile(path=str(path), tokenizer=str(folder), **fields)
        found.append(read_lengths(file, lambda _: None).pairs[0])
    return found


def test_texts(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    closed = [text if text.endswith("</s>") else text + "</s>" for text in TEXTS]
    expected = [(0, len(theirs(text)["input_ids"])) for text in closed]
    assert tokens(folder, [{"text": text} for text in TEXTS]) == expected


def test_pairs_of_an_encoder_decoder(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    rows = [{"prompt": a, "completion": b} for a, b in zip(TEXTS, TEXTS[1:], strict=False)]
    made = [theirs(row["prompt"], text_target=row["completion"]) for row in rows]
    expected = [(len(one["input_ids"]), len(one["labels"])) for one in made]
    assert tokens(folder, rows, encoder_decoder=True) == expected


def test_conversations(folder: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    expected = [len(theirs.apply_chat_template(talk, return_dict=False)) for talk in TALKS]
    found = tokens(folder, [{"messages": talk} for talk in TALKS])
    assert [source + target for source, target in found] == expected
    # What the assistant says, and the token that ends its turn.
    said = len(theirs(TEXTS[1], add_special_tokens=False)["input_ids"]) + 1
    assert [target for _, target in found] == [said, 0]
