"""The user's own texts as micro-batches of token ids: a JSONL file, one object per line.

Read line by line, and no further than the batches that are needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftadvisor.data.jsonl import Row, read_objects, text_of
from peftadvisor.errors import UsageError
from peftadvisor.simulator.batches import Batch, choose_class
from peftadvisor.simulator.depth import completed
from peftadvisor.specs import ModelSpec, TrainingSpec

MAX_BATCHES = 256
"""Kept at most; a longer run goes through them again."""
IGNORED = -100
"""The label that no loss is taken of."""
ONE_TEXT = ("causal-lm", "multimodal-lm", "any-to-text", "masked-lm")
READS_TEXT = (*ONE_TEXT, "seq2seq", "classifier")

Ids = list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """Where texts are, and what makes tokens of them: a folder or a ``tokenizer.json``.

    ``target_field`` holds what an encoder-decoder is to write; without it that is the text.
    """

    path: str
    tokenizer: str
    text_field: str = "text"
    target_field: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TextBatch:
    """One micro-batch of token ids [b, s] and how many of each row are no padding.

    ``targets`` [b, t] are of encoder-decoders, with ``IGNORED`` for padding.
    """

    ids: np.ndarray = field(repr=False)
    lengths: tuple[int, ...]
    targets: np.ndarray | None = field(default=None, repr=False)

    @property
    def seq_len(self) -> int:
        """Tokens of a row, padding included."""
        return int(self.ids.shape[1])

    @property
    def target_len(self) -> int:
        """Tokens of a target, padding included; 0 where there are none."""
        return 0 if self.targets is None else int(self.targets.shape[1])

    def tensors(self, task: str) -> Batch:
        """What a model of this task takes, on the CPU; classifiers learn one class."""
        ids = torch.from_numpy(self.ids.astype(np.int64))
        real = torch.arange(self.seq_len)[None, :] < torch.tensor(self.lengths)[:, None]
        labels = ids.masked_fill(~real, IGNORED)
        if self.targets is not None:
            labels = torch.from_numpy(self.targets.astype(np.int64))
        elif task == "classifier":
            labels = torch.zeros(len(ids), dtype=torch.long)
        return {"input_ids": ids, "attention_mask": real.long(), "labels": labels}


def read_batches(
    file: TextFile, model: ModelSpec, training: TrainingSpec, count: int
) -> tuple[TextBatch, ...]:
    """The first ``count`` micro-batches of a file, in its order, ``MAX_BATCHES`` at most.

    Texts are cut to ``seq_len`` tokens, targets to ``target_len``. Padded: each batch is as long
    as its longest text. Packed: one text behind the other, in rows of ``seq_len``. A file with
    fewer batches gives those it has; what is left over at its end makes none.

    Raises:
        UsageError: the model takes no text, the file or the tokenizer cannot be used, or there
            are too few texts for one batch.
    """
    task = _task(file, model, training)
    tokens = _Tokens(file, _vocabulary(model), training, task == "seq2seq")
    rows = tokens.padded() if training.padded else tokens.packed(training.seq_len)
    batches: list[TextBatch] = []
    while len(batches) < min(count, MAX_BATCHES):
        part = list(islice(rows, training.micro_batch_size))
        if len(part) < training.micro_batch_size:
            break
        batches.append(_batch(part, tokens.pad))
    if not batches:
        raise UsageError(_too_few(file, training, tokens))
    return tuple(batches)


def longest(batches: tuple[TextBatch, ...]) -> TextBatch:
    """The batch with most tokens in a row, source and target together; the first of several."""
    return max(batches, key=lambda batch: batch.seq_len + batch.target_len)


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a local folder or ``tokenizer.json``, without the network or its own code.

    Raises:
        UsageError: there is none, or transformers cannot load it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    remedy = "--tokenizer takes a local folder that save_pretrained made, or a tokenizer.json"
    try:
        place = Path(path)
        if not place.exists():
            raise UsageError(f"there is no tokenizer at {path}; {remedy}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if place.is_file():
                return PreTrainedTokenizerFast(tokenizer_file=path)
            return AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
    except UsageError:
        raise
    except Exception as error:  # the reasons of tokenizers are many, some bare Exceptions
        line = " ".join(str(error).split())[:160]
        raise UsageError(f"the tokenizer at {path} cannot be loaded ({line}); {remedy}") from error


class _Tokens:
    """Rows of token ids out of a file: pairs of source and target, the target None for most."""

    def __init__(
        self, file: TextFile, vocabulary: int, training: TrainingSpec, pairs: bool
    ) -> None:
        self.file, self.vocabulary, self.pairs = file, vocabulary, pairs
        self.training = training
        self.texts = self.tokens = 0
        self.tokenizer = load_tokenizer(file.tokenizer)
        self.eos: int | None = self.tokenizer.eos_token_id
        pad = int(self.tokenizer.pad_token_id or 0)
        self.pad = pad if pad < vocabulary else 0

    def padded(self) -> Iterator[tuple[Ids, Ids | None]]:
        """One row for each text."""
        for number, row in read_objects(self.file.path, "--data"):
            ids = self._ids(row, number, self.file.text_field, self.training.seq_len)
            target = None
            if self.pairs:
                key = self.file.target_field or self.file.text_field
                target = self._ids(row, number, key, self.training.target_len)
            self.texts += 1
            yield ids, target

    def packed(self, seq_len: int) -> Iterator[tuple[Ids, Ids | None]]:
        """Rows of ``seq_len`` tokens, texts parted by the end-of-text token where there is one."""
        rest: Ids = []
        for ids, _ in self.padded():
            end = [] if self.eos is None or ids[-1] == self.eos else [self.eos]
            rest += [*ids, *end]
            self.tokens += len(ids) + len(end)
            while len(rest) >= seq_len:
                yield rest[:seq_len], None
                rest = rest[seq_len:]

    def _ids(self, row: Row, number: int, key: str, most: int) -> Ids:
        where = f"{self.file.path}, line {number}"
        text = text_of(row, key, where)
        try:
            ids: Ids = self.tokenizer(text, truncation=True, max_length=most)["input_ids"]
        except Exception as error:  # half of a surrogate pair, or whatever its code dislikes
            raise UsageError(f"{where}: '{key}' cannot be made tokens; mend the text") from error
        if not ids:
            raise UsageError(f"{where}: '{key}' holds no token; take the line out")
        if max(ids) >= self.vocabulary:
            raise UsageError(
                f"{where}: the tokenizer gives id {max(ids)}, and the model knows "
                f"{self.vocabulary}; name the model's own by --tokenizer"
            )
        return ids


def _task(file: TextFile, model: ModelSpec, training: TrainingSpec) -> str:
    config = completed(model.config)
    task = choose_class(config, (config.architectures or [None])[0])[1].name
    if task not in READS_TEXT:
        raise UsageError(f"{model.id} is not trained on text ({task}); leave --data out")
    if task not in ONE_TEXT and not training.padded:
        raise UsageError(
            f"texts of {model.id} ({task}) are not packed, each has its own answer; add --padded"
        )
    if file.target_field and task != "seq2seq":
        raise UsageError(f"{model.id} is no encoder-decoder; leave --target-field out")
    return task


def _vocabulary(model: ModelSpec) -> int:
    return int(completed(model.config).get_text_config().vocab_size)


def _batch(rows: list[tuple[Ids, Ids | None]], pad: int) -> TextBatch:
    targets = [target for _, target in rows if target is not None]
    sources = [ids for ids, _ in rows]
    return TextBatch(
        _filled(sources, pad),
        tuple(len(ids) for ids in sources),
        _filled(targets, IGNORED) if targets else None,
    )


def _filled(rows: list[Ids], value: int) -> np.ndarray:
    made = np.full((len(rows), max(map(len, rows))), value, dtype=np.int32)
    for row, ids in zip(made, rows, strict=True):
        row[: len(ids)] = ids
    return made


def _too_few(file: TextFile, training: TrainingSpec, tokens: _Tokens) -> str:
    b = training.micro_batch_size
    if not tokens.texts:
        return f"--data {file.path} holds no text; give one JSON object per line"
    if training.padded:
        return (
            f"--data {file.path} holds too few texts ({tokens.texts}) for a micro-batch of {b}; "
            "add lines or lower --batch-size"
        )
    return (
        f"--data {file.path} gives too few tokens ({tokens.tokens}) for a packed micro-batch of "
        f"{b} × {training.seq_len}; add lines, lower --seq-len, or use --padded"
    )
