"""How many tokens texts make, by the ``tokenizers`` library alone: no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.chat_templates import (
    ChatTemplate,
    compile_template,
    template_source,
)
from peftadvisor.integrations.record_shapes import LEARNED_ROLES, Talked, Written, content_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_FILE = "tokenizer.json"
_REMEDY = "--tokenizer takes a local folder that holds a tokenizer.json, or that file"
# What tokenizers were kept in before, or still are, without a tokenizer.json beside it.
_OTHER_FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_NO_JINJA = (
    "the chat template is left out, and with it the tokens that mark turns: "
    "pip install 'peftadvisor[data]'"
)
_NO_TEMPLATE = "the tokenizer has no chat template: tokens that mark turns are left out"
_TEMPLATE = "conversations are written out by the tokenizer's own chat template"


@dataclass(frozen=True, slots=True)
class Part:
    """A text to count, and what its tokens (and ``extra`` ones) add to source and target.

    ``special`` texts get what the tokenizer puts around them, a start token or the like.
    """

    text: str
    special: bool
    to_source: int
    to_target: int
    extra: int = 0


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """A tokenizer, the end-of-text token that trainers append, and its chat template.

    ``end`` is None where the tokenizer names none or puts it there itself.
    """

    tokenizer: Tokenizer = field(repr=False)
    end: str | None
    template: ChatTemplate | None
    template_note: str

    def count(self, texts: Sequence[str], *, special: bool) -> list[int]:
        """Tokens of each text.

        Raises:
            TypeError: a text that is no Unicode, such as half of a surrogate pair.
        """
        made = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)
        return [len(encoding) for encoding in made]

    def in_one_row(self, pair: Written) -> tuple[Part, ...]:
        """A text, or source and target, as one sequence that the end-of-text token closes.

        Source and target are counted one by one: a token that would span both counts as two.
        """
        end = int(self.end is not None and not pair.target.endswith(self.end))
        if pair.source is None:
            return (Part(pair.target, True, 0, 1, end),)
        return Part(pair.source, True, 1, 0), Part(pair.target, False, 0, 1, end)

    def in_two_rows(self, pair: Written) -> tuple[Part, ...]:
        """Source and target of an encoder-decoder; a text without source is its own."""
        source = pair.target if pair.source is None else pair.source
        return Part(source, True, 1, 0), Part(pair.target, True, 0, 1)

    def talked(self, talk: Talked) -> tuple[Part, ...]:
        """A conversation as its template writes it; what the assistant says is the target.

        Each of its turns is learned with the token that ends it.

        Raises:
            ValueError: the template refuses the conversation.
        """
        spoken = [
            (content_of(message), number >= talk.learned_from and message["role"] in LEARNED_ROLES)
            for number, message in enumerate(talk.messages)
        ]
        if self.template is None:
            return tuple(Part(text, False, 1 - learned, int(learned)) for text, learned in spoken)
        turns = (Part(text, False, -1, 1, 1) for text, learned in spoken if learned)
        return Part(self.template.write(talk), False, 1, 0), *turns


def load_counter(path: str) -> TokenCounter:
    """The tokenizer of a local folder or ``tokenizer.json``, without the network.

    Raises:
        UsageError: there is none, it cannot be loaded, or the tokenizers library is missing.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "counting the tokens of texts needs the tokenizers library; "
            "pip install 'peftadvisor[data]'"
        ) from None
    file = _file(path)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exceptions
        line = one_line(" ".join(str(error).split())[:120])
        raise UsageError(
            f"the tokenizer at {one_line(path)} cannot be loaded ({line}); {_REMEDY}"
        ) from None
    # Limits that were saved with it would hide how long texts are.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = _config(file.parent)
    tokens = _special_tokens(config)
    source = template_source(file.parent, config)
    template = compile_template(source, tokens, one_line(path)) if source else None
    note = _TEMPLATE if template else _NO_JINJA if source else _NO_TEMPLATE
    return TokenCounter(tokenizer, _end(tokenizer, tokens.get("eos_token")), template, note)


def _file(path: str) -> Path:
    shown = one_line(path)
    try:
        place = Path(path)
        if place.is_file():
            return place
        if not place.exists():
            raise UsageError(f"there is no tokenizer at {shown}; {_REMEDY}")
        if (place / _FILE).is_file():
            return place / _FILE
        old = next((name for name in _OTHER_FILES if (place / name).exists()), None)
    except (OSError, ValueError):
        raise UsageError(f"the tokenizer at {shown} cannot be read; {_REMEDY}") from None
    if old is None:
        raise UsageError(f"{shown} holds no tokenizer.json; {_REMEDY}")
    raise UsageError(
        f'{shown} holds {old} but no tokenizer.json; to make one: python -c "from transformers '
        f"import AutoTokenizer as T; T.from_pretrained('{shown}').save_pretrained('{shown}')\""
    )


def _config(folder: Path) -> Mapping[str, Any]:
    """What ``tokenizer_config.json`` says, nothing where there is none."""
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{one_line(str(file))} is no JSON object; {_REMEDY}")
    return found


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Those with a name of their own, such as ``eos_token``; kept as texts or as objects."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _end(tokenizer: Tokenizer, eos: str | None) -> str | None:
    """The end-of-text token, unless the tokenizer knows none or appends it itself."""
    if eos is None or (number := tokenizer.token_to_id(eos)) is None:
        return None
    return None if tokenizer.encode("a").ids[-1:] == [number] else eos
