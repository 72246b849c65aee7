"""A user's texts as batches: order, cutting, padding, packing; and every way a file can be bad."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")

from transformers import PreTrainedTokenizerFast  # noqa: E402

from peftadvisor.data.jsonl import MAX_LINE_BYTES  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from peftadvisor.profilers.texts import (  # noqa: E402
    IGNORED,
    MAX_BATCHES,
    TextFile,
    longest,
    read_batches,
)
from peftadvisor.profilers.workload import Given, Workload  # noqa: E402
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec  # noqa: E402

# One token per word: <unk> 0, <pad> 1, </s> 2, a 3, b 4, c 5.
WORDS = {word: number for number, word in enumerate(["<unk>", "<pad>", "</s>", "a", "b", "c"])}
PADDED = TrainingSpec(
    micro_batch_size=2, seq_len=8, target_len=4, padded=True, dtype="fp32", optimizer="sgd"
)
PACKED = replace(PADDED, padded=False)


def spec(kind: str) -> ModelSpec:
    return ModelSpec(
        id=kind,
        config=MODELS[kind],
        config_key="tiny",
        parameters=None,
        checkpoint_parameters=None,
        provenance="made for a test",
    )


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    whole = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    whole.save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.fixture
def file(tmp_path: Path, tokenizer: str) -> Callable[..., TextFile]:
    """``file(*rows)``: a JSONL file of these objects; bytes and text go in as they are."""

    def make(*rows: Any, **fields: Any) -> TextFile:
        lines = [
            row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows
        ]
        path = tmp_path / "texts.jsonl"
        path.write_bytes(b"".join(lines))
        return TextFile(path=str(path), tokenizer=tokenizer, **fields)

    return make


def texts(*found: str) -> list[dict[str, str]]:
    return [{"text": text} for text in found]


def test_padded_to_the_longest_of_the_batch(file: Callable[..., TextFile]) -> None:
    rows = texts("a", "a b c", "b b", "c", "a")  # the fifth is left over
    first, second = read_batches(file(*rows), spec("llama"), PADDED, 9)
    assert first.ids.tolist() == [[3, 1, 1], [3, 4, 5]]
    assert first.lengths == (1, 3)
    assert second.ids.tolist() == [[4, 4], [5, 1]]
    batch = first.tensors("causal-lm")
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[3, IGNORED, IGNORED], [3, 4, 5]]
    assert longest((second, first)) is first


def test_texts_are_cut_and_packed(file: Callable[..., TextFile]) -> None:
    # Cut to 4, each followed by </s>: a a a a </s> b </s> c | c </s>: two rows of 4.
    training = replace(PACKED, seq_len=4)
    given = file(*texts("a a a a a a", "b", "c c"))
    (batch,) = read_batches(given, spec("llama"), training, 9)
    assert batch.ids.tolist() == [[3, 3, 3, 3], [2, 4, 2, 5]]
    assert batch.tensors("causal-lm")["attention_mask"].all()


def test_targets_of_encoder_decoders(file: Callable[..., TextFile]) -> None:
    rows = [{"text": "a b", "out": "c c c c c c"}, {"text": "a", "out": "b"}]
    (batch,) = read_batches(file(*rows, target_field="out"), spec("t5"), PADDED, 1)
    assert batch.tensors("seq2seq")["labels"].tolist() == [[5] * 4, [4] + [IGNORED] * 3]
    (batch,) = read_batches(file(*rows), spec("t5"), PADDED, 1)
    assert batch.tensors("seq2seq")["labels"].tolist() == [[3, 4], [3, IGNORED]]


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_trains_on_them(kind: str, file: Callable[..., TextFile]) -> None:
    rows = texts("a", "a b c", "b b", "c c c c c")
    batches = read_batches(file(*rows), spec(kind), PADDED, 2)
    workload = Workload(spec(kind), MethodSpec(name="full"), PADDED, given=Given(texts=batches))
    # The batches are 3 and 5 long, two texts each, two micro-batches: 2 * (3 + 5) / 2 a step.
    assert workload.step_tokens == 8
    seen: list[int] = []
    hook = workload.model.register_forward_pre_hook(
        lambda _, __, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    for _ in range(3):
        workload.step()
    workload.hold_longest().step()
    hook.remove()
    assert seen == [3, 5, 3, 5]
    assert workload.batch["input_ids"].shape == (2, 5)


def test_no_more_is_read_than_needed(file: Callable[..., TextFile]) -> None:
    given = file(*texts("a", "b"), b"broken")
    assert len(read_batches(given, spec("llama"), PADDED, 1)) == 1
    with pytest.raises(UsageError, match="line 3 is not JSON"):
        read_batches(given, spec("llama"), PADDED, 2)


def test_a_long_run_goes_round_and_round(file: Callable[..., TextFile]) -> None:
    given = file(*texts("a") * (2 * MAX_BATCHES + 5))
    assert len(read_batches(given, spec("llama"), PADDED, 10**6)) == MAX_BATCHES


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([b""], "holds no text; give one JSON object per line"),
        ([b"\n \n"], "holds no text"),
        ([{"text": "a"}], "too few texts (1) for a micro-batch of 2; add lines or lower"),
        ([b"{'text': 'a'}"], "texts.jsonl, line 1 is not JSON (Expecting property name"),
        ([{"text": "a"}, b"[1]"], "texts.jsonl, line 2 holds no JSON object"),
        ([{"text": "a"}, b"\n", b"\x80\x81"], "texts.jsonl, line 3 is not UTF-8 text"),
        ([b"[" * 100_000], "line 1 is not JSON (numbers or nesting"),
        ([b"9" * 5_000], "line 1 is not JSON (numbers or nesting"),
        ([{"content": "a", "id": 1}], "line 1 has no key 'text'; its keys: content, id"),
        ([{}], "line 1 has no key 'text'; its keys: none"),
        ([{"text": ["a"]}], "line 1: 'text' is [\"a\"], not a text; name another key"),
        ([{"text": None}], "'text' is null, not a text"),
        ([{"text": ""}], "line 1: 'text' holds no token; take the line out"),
        ([b'{"text": "\\ud800"}'], "line 1: 'text' cannot be made tokens; mend the text"),
        ([b"a" * (MAX_LINE_BYTES + 1)], "line 1 is longer than 4 MiB"),
    ],
)
def test_bad_files(rows: list[Any], complaint: str, file: Callable[..., TextFile]) -> None:
    with pytest.raises(UsageError) as caught:
        read_batches(file(*rows), spec("llama"), PADDED, 3)
    assert complaint in str(caught.value)
    assert "texts.jsonl" in str(caught.value)


def test_too_few_tokens_to_pack(file: Callable[..., TextFile]) -> None:
    with pytest.raises(UsageError, match=r"too few tokens \(4\) for a packed micro-batch of 2 × 8"):
        read_batches(file(*texts("a", "b")), spec("llama"), PACKED, 1)


def test_what_cannot_go_together(file: Callable[..., TextFile]) -> None:
    given = file(*texts("a", "b"))
    with pytest.raises(UsageError, match=r"t5 \(seq2seq\) are not packed.*; add --padded"):
        read_batches(given, spec("t5"), PACKED, 1)
    with pytest.raises(UsageError, match="no encoder-decoder; leave --target-field out"):
        read_batches(replace(given, target_field="out"), spec("llama"), PADDED, 1)
    small = replace(spec("llama"), config={**MODELS["llama"], "vocab_size": 4})
    with pytest.raises(UsageError, match=r"line 2: the tokenizer gives id 4, and the model knows"):
        read_batches(given, small, PADDED, 1)
    vision = replace(spec("llama"), config={"model_type": "vit"})
    with pytest.raises(UsageError, match=r"is not trained on text \(image\); leave --data out"):
        read_batches(given, vision, PADDED, 1)


def test_paths_that_hold_nothing(file: Callable[..., TextFile], tmp_path: Path) -> None:
    given = file(*texts("a", "b"))
    for path, complaint in (("none", "does not exist"), (".", "is not a regular file")):
        with pytest.raises(UsageError, match=complaint):
            read_batches(replace(given, path=str(tmp_path / path)), spec("llama"), PADDED, 1)
    (tmp_path / "broken.json").write_bytes(b"\x00\xff")
    (tmp_path / "empty").mkdir()
    for name, complaint in (
        ("none", "there is no tokenizer at"),
        ("broken.json", "cannot be loaded"),
        ("empty", "cannot be loaded"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_batches(replace(given, tokenizer=str(tmp_path / name)), spec("llama"), PADDED, 1)


def test_a_tokenizer_runs_no_code_of_its_own(
    file: Callable[..., TextFile], tokenizer: str, tmp_path: Path
) -> None:
    folder = Path(tokenizer)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="cannot be loaded"):
        read_batches(file(*texts("a", "b")), spec("llama"), PADDED, 1)
    assert not (tmp_path / "ran").exists()


def test_large_files_are_not_held(file: Callable[..., TextFile]) -> None:
    row = json.dumps({"text": "a b c"}).encode() + b"\n"
    given = file(row * (50 * 1024**2 // len(row)))
    read_batches(given, spec("llama"), PADDED, 1)  # all imports are made by now
    tracemalloc.start()
    assert len(read_batches(given, spec("llama"), PADDED, 3)) == 3
    assert tracemalloc.get_traced_memory()[1] < 2 * 1024**2
    Path(given.path).write_bytes(bytes(50 * 1024**2))
    tracemalloc.reset_peak()
    with pytest.raises(UsageError, match="longer than 4 MiB"):
        read_batches(given, spec("llama"), PADDED, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 1024**2
