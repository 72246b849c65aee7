"""What a line of a data set holds, recognised by its keys: the shapes that trainers read.

The first shape whose keys a line has wins; keys that hold null are taken as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, TypeGuard

from peftadvisor.data.jsonl import Row, keys_of, not_a, text_of
from peftadvisor.errors import UsageError

IGNORED = -100
"""The label that no loss is taken of."""
LEARNED_ROLES = frozenset({"assistant", "model"})

Message = Mapping[str, Any]

# How ShareGPT and its kin name who speaks.
_ROLES: Mapping[str, str] = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_call": "assistant",
}
_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
_NUMBERS = ("n_tokens", "num_tokens", "length")


@dataclass(frozen=True, slots=True)
class Counted:
    """A sequence that is tokens already: how many, and how many labels, None where none stand."""

    tokens: int
    labels: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to train on."""
        return not self.tokens


@dataclass(frozen=True, slots=True)
class Written:
    """What is given (None: nothing, the whole is learned) and what is learned."""

    source: str | None
    target: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to train on."""
        return not (self.source or self.target)


@dataclass(frozen=True, slots=True)
class Talked:
    """Messages with role and content; those from ``learned_from`` on may be learned."""

    messages: tuple[Message, ...]
    learned_from: int = 0
    tools: Any = field(default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to train on."""
        return not self.messages


Sequence = Counted | Written | Talked


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line: the name of its shape, and its sequences (two where answers are compared)."""

    shape: str
    sequences: tuple[Sequence, ...]


@dataclass(frozen=True, slots=True)
class _Shape:
    name: str
    keys: tuple[str, ...]
    read: Callable[[Row, str], tuple[Sequence, ...]]


def recognize(row: Row, where: str) -> Record:
    """What a line holds; ``where`` names file and line.

    Raises:
        UsageError: no known shape, or a key of one that holds something else.
    """
    for shape in _SHAPES:
        if all(row.get(key) is not None for key in shape.keys):
            return Record(shape=shape.name, sequences=shape.read(row, where))
    raise UsageError(
        f"{where} has none of the known keys, but: {keys_of(row)}; name them by --text-field and "
        "--target-field, or rename them to text, prompt and completion, or messages"
    )


def named(row: Row, text_field: str, target_field: str | None, where: str) -> Record:
    """What a line holds under the keys that the user names.

    Raises:
        UsageError: a key is missing or holds something else.
    """
    if target_field is not None:
        shape = f"{text_field}, {target_field}"
        return Record(shape=shape, sequences=_pair(text_field, target_field, row, where))
    if isinstance(row.get(text_field), list):
        return Record(shape=text_field, sequences=_talk(text_field, row, where))
    return Record(shape=text_field, sequences=_text(text_field, row, where))


def content_of(message: Message) -> str:
    """The text of a message; parts that are no text count nothing."""
    content = message["content"]
    if not isinstance(content, list):
        return content or ""
    return "".join(part["text"] for part in content if isinstance(part.get("text"), str))


def holds_other_parts(message: Message) -> bool:
    """Whether there are images or other parts beside the text."""
    content = message["content"]
    return isinstance(content, list) and any("text" not in part for part in content)


def _text(key: str, row: Row, where: str) -> tuple[Sequence, ...]:
    return (Written(None, text_of(row, key, where)),)


def _pair(source: str, target: str, row: Row, where: str) -> tuple[Sequence, ...]:
    if isinstance(row.get(source), list):
        given, learned = _messages(row, source, where), _messages(row, target, where)
        return (Talked((*given, *learned), len(given), row.get("tools")),)
    return (Written(text_of(row, source, where), text_of(row, target, where)),)


def _alpaca(row: Row, where: str) -> tuple[Sequence, ...]:
    """Instruction and, where there is one, input, an empty line between them."""
    parts = [text_of(row, "instruction", where)]
    if row.get("input"):
        parts.append(text_of(row, "input", where))
    return (Written("\n\n".join(parts), text_of(row, "output", where)),)


def _talk(key: str, row: Row, where: str) -> tuple[Sequence, ...]:
    system = row.get("system")
    first = ({"role": "system", "content": system},) if isinstance(system, str) and system else ()
    return (Talked((*first, *_messages(row, key, where)), 0, row.get("tools")),)


def _preference(row: Row, where: str) -> tuple[Sequence, ...]:
    """Two sequences; without a prompt of their kind, what both begin with is the prompt."""
    prompt = row.get("prompt")
    if isinstance(row["chosen"], list):
        answers = [_messages(row, key, where) for key in ("chosen", "rejected")]
        if isinstance(prompt, list):
            given = _messages(row, "prompt", where)
            answers = [(*given, *answer) for answer in answers]
            shared = len(given)
        else:
            shared = _shared(*answers)
        return tuple(Talked(answer, shared, row.get("tools")) for answer in answers)
    texts = [text_of(row, key, where) for key in ("chosen", "rejected")]
    if prompt is not None:
        return tuple(Written(text_of(row, "prompt", where), text) for text in texts)
    shared = _shared(*texts)
    return tuple(Written(text[:shared], text[shared:]) for text in texts)


def _shared(one: Series[Any], other: Series[Any]) -> int:
    """How many items two series begin with alike."""
    alike = (a == b for a, b in zip(one, other, strict=False))
    return sum(1 for _ in takewhile(bool, alike))


def _token_ids(row: Row, where: str) -> tuple[Sequence, ...]:
    ids, labels = row["input_ids"], row.get("labels")
    if not _are_whole(ids):
        raise not_a(row, "input_ids", "a list of whole numbers", where)
    learned = len(labels) - labels.count(IGNORED) if _are_whole(labels) else None
    return (Counted(len(ids), learned),)


def _number(key: str, row: Row, where: str) -> tuple[Sequence, ...]:
    if not _are_whole([row[key]]) or row[key] < 0:
        raise not_a(row, key, "a number of tokens", where)
    return (Counted(row[key]),)


def _are_whole(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and set(map(type, values)) <= {int}


def _messages(row: Row, key: str, where: str) -> tuple[Message, ...]:
    if not isinstance(row.get(key), list):
        text_of(row, key, where)  # says that the key is missing, where it is
        raise not_a(row, key, "a list of messages", where)
    return tuple(_message(message, row, key, where) for message in row[key])


def _message(message: Any, row: Row, key: str, where: str) -> Message:
    """A message with role and content, whatever its keys were called."""
    if isinstance(message, dict):
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        if isinstance(role, str) and _is_content(content):
            return {**message, "role": _ROLES.get(role, role), "content": content}
    raise not_a(row, key, "a list of messages with role and content", where)


def _is_content(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) for part in content)
    return content is None or isinstance(content, str)


_SHAPES = (
    _Shape("input_ids", ("input_ids",), _token_ids),
    _Shape("chosen, rejected", ("chosen", "rejected"), _preference),
    _Shape("messages", ("messages",), partial(_talk, "messages")),
    _Shape("conversations", ("conversations",), partial(_talk, "conversations")),
    _Shape("instruction, input, output", ("instruction", "output"), _alpaca),
    *(_Shape(", ".join(pair), pair, partial(_pair, *pair)) for pair in _PAIRS),
    _Shape("text", ("text",), partial(_text, "text")),
    *(_Shape(key, (key,), partial(_number, key)) for key in _NUMBERS),
)
