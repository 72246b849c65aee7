"""Lines of a data set by their shapes, counted word by word; and every way they can be bad."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers")

from peftadvisor.data.lengths import Lengths  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.integrations.datasets import DatasetFile, read_lengths  # noqa: E402
from tests.word_tokenizer import TEMPLATE, save_tokenizer  # noqa: E402

Read = Callable[..., Lengths]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return save_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def read(tmp_path: Path, tokenizer: Path) -> Read:
    """``read(*rows, **fields)``: the lengths of a file of these rows."""

    def make(*rows: Any, **fields: Any) -> Lengths:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / "data.jsonl"
        path.write_bytes(b"\n".join(lines))
        given = {"tokenizer": str(tokenizer), **fields}
        return read_lengths(DatasetFile(path=str(path), **given), lambda _: None)

    return make


def counted(lengths: Lengths) -> dict[tuple[int, int], int]:
    return dict(zip(lengths.pairs, lengths.counts, strict=True))


# <s> in front of what begins a sequence, </s> behind what ends it: (source, target).
@pytest.mark.parametrize(
    ("row", "shape", "pair"),
    [
        ({"text": "a b c"}, "text", (0, 5)),  # <s> a b c </s>
        ({"text": "a b c </s>"}, "text", (0, 5)),  # closed already
        ({"text": "a", "label": 3, "prompt": None}, "text", (0, 3)),
        ({"prompt": "a b", "completion": "c"}, "prompt, completion", (3, 2)),
        ({"prompt": "a b", "response": "c"}, "prompt, response", (3, 2)),
        ({"question": "a", "answer": "b c"}, "question, answer", (2, 3)),
        ({"instruction": "a", "response": "b c"}, "instruction, response", (2, 3)),
        ({"input": "a", "output": "b c"}, "input, output", (2, 3)),
        ({"instruction": "a", "output": "b"}, "instruction, input, output", (2, 2)),
        ({"instruction": "a", "input": "", "output": "b"}, "instruction, input, output", (2, 2)),
        ({"instruction": "a", "input": "b c", "output": "b", "text": "…"}, None, (4, 2)),
        ({"input_ids": [5, 6, 7]}, "input_ids", (0, 3)),
        ({"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}, "input_ids", (2, 1)),
        ({"input_ids": [5, 6, 7], "labels": 1, "text": "a"}, "input_ids", (0, 3)),
        ({"n_tokens": 12}, "n_tokens", (0, 12)),
        ({"num_tokens": 12}, "num_tokens", (0, 12)),
        ({"length": 12, "id": "x"}, "length", (0, 12)),
        # Without a template: the words alone, those of the assistant learned.
        ({"messages": [user("a b"), assistant("c")]}, "messages", (2, 1)),
        ({"messages": [user("a"), assistant("b"), user("a a"), assistant("c c")]}, None, (3, 3)),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b c"}]},
         "conversations", (1, 2)),
        ({"conversations": [user("a")], "system": "b b b"}, "conversations", (4, 0)),
        ({"prompt": [user("a"), assistant("b")], "completion": [assistant("c")]},
         "prompt, completion", (2, 1)),
        ({"messages": [user([{"type": "text", "text": "a b"}]), assistant(None)]}, None, (2, 0)),
    ],
)  # fmt: skip
def test_shapes(row: dict[str, Any], shape: str | None, pair: tuple[int, int], read: Read) -> None:
    found = read(row)
    assert counted(found) == {pair: 1}
    assert shape is None or found.shapes == ((shape, 1),)
    assert found.examples == 1


@pytest.mark.parametrize(
    ("row", "pairs"),
    [
        # <s> a | b </s> and <s> a | c c </s>
        ({"prompt": "a", "chosen": "b", "rejected": "c c"}, [(2, 2), (2, 3)]),
        # What both begin with is the prompt: "a " counts as <s> a.
        ({"chosen": "a b", "rejected": "a c c"}, [(2, 2), (2, 3)]),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c c")]},
            [(1, 1), (1, 2)],
        ),
        # A prompt of another kind is in the conversations too.
        (
            {
                "prompt": "a",
                "chosen": [user("a"), assistant("b")],
                "rejected": [user("a"), assistant("c c")],
                "messages": [user("a")],
            },
            [(1, 1), (1, 2)],
        ),
        (
            {
                "prompt": [user("a"), assistant("c")],
                "chosen": [assistant("b")],
                "rejected": [assistant("c c")],
            },
            [(2, 1), (2, 2)],
        ),
    ],
)
def test_answers_that_are_compared(
    row: dict[str, Any], pairs: list[tuple[int, int]], read: Read
) -> None:
    found = read(row)
    assert counted(found) == dict.fromkeys(pairs, 1)
    assert (found.examples, found.sequences) == (1, 2)
    assert "a chosen and a rejected answer make two sequences" in found.notes


def test_a_template_writes_conversations_out(read: Read, tokenizer: Path) -> None:
    save_tokenizer(tokenizer, chat_template=TEMPLATE)
    # <s> <|user|> a b </s> <|assistant|> c </s>: 8, of which c and its </s> are learned.
    found = read({"messages": [user("a b"), assistant("c")]})
    assert counted(found) == {(6, 2): 1}
    assert found.notes == ("conversations are written out by the tokenizer's own chat template",)
    # Only answers to be compared are learned, not what was said before.
    chosen = {"prompt": [user("a"), assistant("b")], "completion": [assistant("c c")]}
    assert counted(read(chosen)) == {(8, 3): 1}


def test_where_templates_are_kept(read: Read, tokenizer: Path) -> None:
    row = {"messages": [user("a b"), assistant("c")]}
    named = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": TEMPLATE}]
    save_tokenizer(tokenizer, chat_template=named)
    assert counted(read(row)) == {(6, 2): 1}
    (tokenizer / "chat_template.jinja").write_text("a a {% generation %}b{% endgeneration %}")
    # The file wins: it writes 3 words, of which c and what ends its turn are taken as learned.
    assert counted(read(row)) == {(1, 2): 1}
    assert counted(read(row, tokenizer=str(tokenizer / "tokenizer.json"))) == {(1, 2): 1}


def test_templates_have_what_theirs_expect(read: Read, tokenizer: Path) -> None:
    template = (
        "{%- for m in messages -%}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{{ m | tojson }} {{ tools | tojson }} {{ strftime_now('%Y') }} {{ pad_token }}"
        "{%- endfor -%}"
    )
    save_tokenizer(tokenizer, chat_template=template, pad_token="c")
    # {"role": "user", "content": "a"} 4 words, [1] one, the year one, c one.
    assert counted(read({"messages": [user("a"), user("b")], "tools": [1]})) == {(7, 0): 1}


def test_a_learned_turn_never_outweighs_the_whole(read: Read, tokenizer: Path) -> None:
    save_tokenizer(tokenizer, chat_template="a")
    assert counted(read({"messages": [user("a"), assistant("b b b")]})) == {(0, 1): 1}


def test_without_an_end_token_none_is_counted(read: Read, tokenizer: Path) -> None:
    save_tokenizer(tokenizer, eos_token=None)
    assert counted(read({"text": "a b"}, {"prompt": "a", "completion": "b"})) == {
        (0, 3): 1,
        (2, 1): 1,
    }
    save_tokenizer(tokenizer, eos_token="not in the vocabulary")
    assert counted(read({"text": "a b"})) == {(0, 3): 1}


def test_two_rows_of_an_encoder_decoder(read: Read) -> None:
    # As transformers tokenizes text and text_target: both with what the tokenizer adds, here <s>.
    rows = [{"prompt": "a", "completion": "b b"}, {"input_ids": [1, 2], "labels": [3, -100]}]
    found = read(*rows, encoder_decoder=True)
    assert counted(found) == {(2, 3): 1, (2, 1): 1}
    assert found.encoder_decoder
    assert found.notes == ()
    found = read({"text": "a b"}, encoder_decoder=True)
    assert counted(found) == {(3, 3): 1}
    assert found.notes == ("no targets are given: each text is taken as its own",)
    found = read({"input_ids": [1, 2]}, encoder_decoder=True)
    assert counted(found) == {(2, 2): 1}
    with pytest.raises(UsageError, match="line 1 holds a conversation, and an encoder-decoder"):
        read({"messages": [user("a")]}, encoder_decoder=True)


def test_named_fields_override_shapes(read: Read) -> None:
    row = {"text": "a", "body": "b b", "sum": "c", "turns": [user("a a a")]}
    assert counted(read(row, text_field="body")) == {(0, 4): 1}
    assert counted(read(row, text_field="body", target_field="sum")) == {(3, 2): 1}
    assert counted(read(row, target_field="sum")) == {(2, 2): 1}
    assert counted(read(row, text_field="turns")) == {(3, 0): 1}
    assert read(row, text_field="body", target_field="sum").shapes == (("body, sum", 1),)


def test_equal_lengths_are_kept_once_and_blank_lines_not_at_all(read: Read) -> None:
    rows = [{"text": "a"}, b"", {"text": "b"}, {"text": ""}, {"messages": []}, {"text": "a b"}]
    found = read(*rows)
    assert counted(found) == {(0, 3): 2, (0, 4): 1}
    assert (found.examples, found.notes) == (3, ("2 lines without any text left out",))


def test_more_lines_than_are_counted_at_once(read: Read, tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "many.jsonl.gz"
    # 1 to 3 words in turn, and <s> and </s>: 2500 lines are 834, 833 and 833 of each.
    lines = (json.dumps({"text": " ".join("abc"[: 1 + n % 3])}) for n in range(2500))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    said: list[str] = []
    found = read_lengths(DatasetFile(path=str(path), tokenizer=str(tokenizer)), said.append)
    assert counted(found) == {(0, 3): 834, (0, 4): 833, (0, 5): 833}
    assert [line.split(" lines")[0] for line in said] == [
        "counted the tokens of 1,024",
        "counted the tokens of 2,048",
    ]


def test_tokens_need_no_tokenizer(read: Read) -> None:
    assert counted(read({"input_ids": [1]}, {"length": 2}, tokenizer=None)) == {
        (0, 1): 1,
        (0, 2): 1,
    }
    with pytest.raises(UsageError, match=r"line 2 holds text; .* by --tokenizer"):
        read({"input_ids": [1]}, {"text": "a"}, tokenizer=None)


def test_other_parts_of_messages_are_noted(read: Read) -> None:
    found = read({"messages": [user([{"type": "image"}, {"type": "text", "text": "a"}])]})
    assert counted(found) == {(1, 0): 1}
    assert "images and other parts of messages that are no text are left out" in found.notes


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"content": "a", "id": 1}, "has none of the known keys, but: content, id; name them by"),
        ({}, "has none of the known keys, but: none; name them by --text-field"),
        ({"text": 3}, "'text' is 3, not a text; name another key"),
        ({"prompt": "a", "completion": ["b"]}, "'completion' is [\"b\"], not a text"),
        ({"prompt": [user("a")], "completion": "b"}, "'completion' is \"b\", not a list of mess"),
        ({"messages": "a"}, "'messages' is \"a\", not a list of messages"),
        ({"messages": ["a"]}, "not a list of messages with role and content"),
        ({"messages": [{"role": "user", "content": 3}]}, "with role and content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "with role and content"),
        ({"chosen": "a", "rejected": 3}, "'rejected' is 3, not a text"),
        ({"chosen": [user("a")], "rejected": "b"}, "'rejected' is \"b\", not a list of messages"),
        ({"input_ids": [[1, 2]]}, "'input_ids' is [[1, 2]], not a list of whole numbers"),
        ({"input_ids": "1 2"}, "'input_ids' is \"1 2\", not a list of whole numbers"),
        ({"length": -1}, "'length' is -1, not a number of tokens"),
        ({"length": True}, "'length' is true, not a number of tokens"),
        (b'{"text": "\\ud800"}', "holds half of a surrogate pair, which no tokenizer takes"),
        (b"{", "is not JSON"),
    ],
)
def test_bad_lines(row: Any, complaint: str, read: Read) -> None:
    with pytest.raises(UsageError) as caught:
        read({"text": "a"}, b"", row)
    assert f"data.jsonl, line 3{':' if complaint[0] == chr(39) else ''}" in str(caught.value)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_names(read: Read, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1 has no key 'body'; its keys: text"):
        read({"text": "a"}, text_field="body")
    for row in (b"", b"\n\n", {"text": ""}):
        with pytest.raises(UsageError, match=r"data.jsonl holds no example; give one JSON"):
            read(row)
    with pytest.raises(UsageError, match="--dataset .* does not exist"):
        read_lengths(DatasetFile(path=str(tmp_path / "none")), lambda _: None)
    with pytest.raises(UsageError, match="--dataset .* is not a regular file"):
        read_lengths(DatasetFile(path=str(tmp_path)), lambda _: None)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "holds no tokenizer.json; --tokenizer takes a local folder that holds"),
        ({"tokenizer.model": b"x"}, "holds tokenizer.model but no tokenizer.json; to make one: py"),
        ({"vocab.json": b"{}"}, "holds vocab.json but no tokenizer.json; to make one: python -c"),
        ({"tokenizer.json": b"\x00\xff"}, "cannot be loaded ("),
        ({"tokenizer.json": b"{}"}, "cannot be loaded ("),
    ],
)
def test_bad_tokenizers(
    files: dict[str, bytes], complaint: str, read: Read, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read({"text": "a"}, tokenizer=str(folder))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tokenizer_there(read: Read) -> None:
    with pytest.raises(UsageError, match="there is no tokenizer at owner/model; --tokenizer takes"):
        read({"text": "a"}, tokenizer="owner/model")


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_bad_tokenizer_config(content: str, read: Read, tokenizer: Path) -> None:
    (tokenizer / "tokenizer_config.json").write_text(content)
    with pytest.raises(UsageError, match="tokenizer_config.json is no JSON object"):
        read({"text": "a"})


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{% for %}", "the chat template of .* cannot be read"),
        ("{{ raise_exception('roles must alternate') }}", "refuses it .roles must alternate.; me"),
        ("{{ messages[0].content.x.y }}", "line 1: the tokenizer's chat template refuses it"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "refuses it"),  # the sandbox
    ],
)
def test_bad_templates(template: str, complaint: str, read: Read, tokenizer: Path) -> None:
    save_tokenizer(tokenizer, chat_template=template)
    with pytest.raises(UsageError, match=complaint):
        read({"messages": [user("a")]})


def test_a_template_file_that_is_no_text(read: Read, tokenizer: Path) -> None:
    (tokenizer / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="chat_template.jinja is no readable text; mend it"):
        read({"messages": [user("a")]})


def test_without_the_libraries(
    read: Read, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tokenizer(tokenizer, chat_template=TEMPLATE)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    found = read({"messages": [user("a b"), assistant("c")]})
    assert counted(found) == {(2, 1): 1}
    assert "the tokens that mark turns: pip install 'peftadvisor[data]'" in found.notes[0]
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"needs the tokenizers library; pip install 'peftadv"):
        read({"text": "a"})


def test_nothing_heavy_is_loaded(tmp_path: Path, tokenizer: Path) -> None:
    save_tokenizer(tokenizer, chat_template=TEMPLATE)
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"messages": [user("a")]}))
    code = (
        "import sys\n"
        "from peftadvisor.cost_model.batching import batching\n"
        "from peftadvisor.integrations.datasets import DatasetFile, read_lengths\n"
        "from peftadvisor.specs import TrainingSpec\n"
        f"file = DatasetFile(path={str(path)!r}, tokenizer={str(tokenizer)!r})\n"
        "batching(read_lengths(file, lambda _: None), TrainingSpec())\n"
        "print({n.partition('.')[0] for n in sys.modules} & "
        "{'torch', 'transformers', 'peft', 'sklearn', 'huggingface_hub', 'scipy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
