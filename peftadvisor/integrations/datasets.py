"""The user's data set, read for its lengths: every line counted, none kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from peftadvisor.data.jsonl import Row, read_objects
from peftadvisor.data.lengths import Lengths, Pair, unique
from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.record_shapes import (
    Counted,
    Record,
    Talked,
    Written,
    holds_other_parts,
    named,
    recognize,
)
from peftadvisor.integrations.token_counts import Part, TokenCounter, load_counter

OPTION = "--dataset"

_SEQUENCES_AT_ONCE = 1024
_CHARACTERS_AT_ONCE = 4 * 1024**2

_NOTES_ON_SHAPES = {
    "chosen, rejected": "a chosen and a rejected answer make two sequences",
    "instruction, input, output": "sentences that a trainer puts around instructions are left out",
    "n_tokens": "lengths are those that n_tokens gives",
    "num_tokens": "lengths are those that num_tokens gives",
    "length": "lengths are those that length gives",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """Where examples are, how they are read, and what makes tokens of them.

    ``tokenizer`` is a folder or a ``tokenizer.json``; None will do where lines hold tokens.
    Without ``text_field`` each line is read as its keys have it. ``encoder_decoder`` says that
    source and target go to two rows.
    """

    path: str
    tokenizer: str | None = None
    text_field: str | None = None
    target_field: str | None = None
    encoder_decoder: bool = False

    def record(self, row: Row, where: str) -> Record:
        """What a line holds.

        Raises:
            UsageError: no known shape, or a key that holds something else.
        """
        if self.text_field is None and self.target_field is None:
            return recognize(row, where)
        return named(row, self.text_field or "text", self.target_field, where)


def read_lengths(file: DatasetFile, progress: Callable[[str], None]) -> Lengths:
    """Count the tokens of every line, without cutting any; ``progress`` is told how far it is.

    Raises:
        UsageError: the file or the tokenizer cannot be used, or a line cannot be read.
    """
    reading, shown = _Reading(file), one_line(file.path)
    for number, row in read_objects(file.path, OPTION):
        reading.add(row, f"{shown}, line {number}")
        if reading.is_full:
            reading.count()
            progress(f"counted the tokens of {number:,} lines of {shown}")
    reading.count()
    return reading.lengths()


class _Reading:
    """A file half read: what has been counted, and the sequences that wait to be."""

    def __init__(self, file: DatasetFile) -> None:
        self._file = file
        self._counter: TokenCounter | None = None
        self._met = Counter[Pair]()
        self._shapes = Counter[str]()
        self._empty = 0
        self._notes: dict[str, None] = {}
        self._waiting: list[tuple[str, tuple[Part, ...]]] = []
        self._characters = 0

    @property
    def is_full(self) -> bool:
        """Whether enough waits to be worth counting."""
        return len(self._waiting) >= _SEQUENCES_AT_ONCE or self._characters >= _CHARACTERS_AT_ONCE

    def add(self, row: Row, where: str) -> None:
        """One more line."""
        record = self._file.record(row, where)
        if all(sequence.is_empty for sequence in record.sequences):
            self._empty += 1
            return
        self._shapes[record.shape] += 1
        for sequence in record.sequences:
            if isinstance(sequence, Counted):
                self._met[self._known(sequence)] += 1
                continue
            parts = tuple(self._parts(sequence, where))
            self._waiting.append((where, parts))
            self._characters += sum(len(part.text) for part in parts)

    def count(self) -> None:
        """Count what waits, all at once."""
        waiting, self._waiting, self._characters = self._waiting, [], 0
        if self._counter is not None:
            self._met.update(_counted(self._counter, waiting))

    def lengths(self) -> Lengths:
        """All that was counted."""
        if not any(map(any, self._met)):
            raise UsageError(
                f"{OPTION} {one_line(self._file.path)} holds no example; give one JSON object "
                "per line"
            )
        pairs, counts = unique(self._met)
        return Lengths(
            file=self._file.path,
            encoder_decoder=self._file.encoder_decoder,
            examples=self._shapes.total(),
            pairs=pairs,
            counts=counts,
            shapes=tuple(self._shapes.most_common()),
            notes=tuple(self._remarks()),
        )

    def _known(self, sequence: Counted) -> Pair:
        labels = sequence.tokens if sequence.labels is None else sequence.labels
        if not self._file.encoder_decoder:
            learned = min(labels, sequence.tokens)
            return sequence.tokens - learned, learned
        if sequence.labels is None:
            self._note("no targets are given: they are taken to be as long as the sources")
        return sequence.tokens, labels

    def _parts(self, sequence: Written | Talked, where: str) -> Iterable[Part]:
        counter = self._loaded(where)
        if isinstance(sequence, Talked):
            return self._talked(sequence, counter, where)
        if not self._file.encoder_decoder:
            return counter.in_one_row(sequence)
        if sequence.source is None:
            self._note("no targets are given: each text is taken as its own")
        return counter.in_two_rows(sequence)

    def _talked(self, talk: Talked, counter: TokenCounter, where: str) -> Iterable[Part]:
        if self._file.encoder_decoder:
            raise UsageError(
                f"{where} holds a conversation, and an encoder-decoder takes pairs; write "
                "prompt and completion"
            )
        self._note(counter.template_note)
        if any(map(holds_other_parts, talk.messages)):
            self._note("images and other parts of messages that are no text are left out")
        try:
            return counter.talked(talk)
        except ValueError as error:
            raise UsageError(
                f"{where}: the tokenizer's chat template refuses it ({one_line(str(error))}); "
                "mend the line"
            ) from None

    def _loaded(self, where: str) -> TokenCounter:
        """The tokenizer, loaded when the first text is met."""
        if self._counter is None:
            if self._file.tokenizer is None:
                raise UsageError(
                    f"{where} holds text; name what makes tokens of it by --tokenizer, a local "
                    "folder or a tokenizer.json"
                )
            self._counter = load_counter(self._file.tokenizer)
        return self._counter

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _remarks(self) -> Iterator[str]:
        for shape, note in _NOTES_ON_SHAPES.items():
            if shape in self._shapes:
                yield note
        yield from self._notes
        if self._empty:
            lines = "line" if self._empty == 1 else "lines"
            yield f"{self._empty:,} {lines} without any text left out"


def _counted(counter: TokenCounter, waiting: list[tuple[str, tuple[Part, ...]]]) -> Iterator[Pair]:
    """Source and target tokens of each sequence; their sum is kept where one would be below 0."""
    sums = [[0, 0] for _ in waiting]
    for special in (True, False):
        chosen = [
            (at, part)
            for at, (_, parts) in enumerate(waiting)
            for part in parts
            if part.special is special
        ]
        texts = [part.text for _, part in chosen]
        try:
            counts = counter.count(texts, special=special)
        except TypeError:
            wrong = next(i for i, text in enumerate(texts) if not _is_unicode(text))
            where = waiting[chosen[wrong][0]][0]
            raise UsageError(
                f"{where} holds half of a surrogate pair, which no tokenizer takes; mend the text"
            ) from None
        for (at, part), tokens in zip(chosen, counts, strict=True):
            sums[at][0] += part.to_source * (tokens + part.extra)
            sums[at][1] += part.to_target * (tokens + part.extra)
    return ((max(0, source), target + min(0, source)) for source, target in sums)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
