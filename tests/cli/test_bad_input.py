"""Whatever is typed wrong: one line on stderr, exit code 2, nothing on stdout, no traceback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peftadvisor.cli.main import main
from peftadvisor.data import tables

Complain = Callable[..., str]

RUN = ("--model", "t5-small", "--gpu", "a100-40g")
ESTIMATE = ("estimate", *RUN, "--method", "lora")
RECOMMEND = ("recommend", *RUN)


@pytest.fixture
def complain(capsys: pytest.CaptureFixture[str]) -> Complain:
    """Run a command that must complain; gives the complaint."""

    def run(*arguments: str) -> str:
        code = main(arguments)
        printed = capsys.readouterr()
        assert code == 2, printed.err
        assert printed.out == ""
        assert printed.err.startswith("peftadvisor: error: ")
        assert printed.err.endswith("\n")
        assert printed.err.count("\n") == 1
        assert "Traceback" not in printed.err
        return printed.err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("guess",), "No such command 'guess'"),
        (("estimate",), "Missing option '--model'"),
        (("recommend", "--gpu", "t4"), "Missing option '--model'"),
        (("estimate", *RUN), "Missing option '--method'"),
        ((*ESTIMATE, "--speed", "9"), "--speed"),
        ((*ESTIMATE, "surprise"), "unexpected extra argument"),
        (("list", "colours"), "'colours' is not one of"),
        (("list",), "Missing argument"),
    ],
)
def test_wrong_commands(arguments: tuple[str, ...], message: str, complain: Complain) -> None:
    complaint = complain(*arguments)
    assert message in complaint
    assert "--help" in complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "t5-smal"), "unknown model 't5-smal'; did you mean 't5-small'?"),
        (("--model", ""), "unknown model ''"),
        (("--model", "acme/none"), "HF_HUB_OFFLINE is set; pass its config.json"),
        (("--model", "no\nsuch\x1bmodel"), "unknown model 'no?such?model'"),
        (("--gpu", "a100-40gigs"), "unknown GPU 'a100-40gigs'; did you mean"),
        (("--gpu", "a100"), "GPU 'a100' is ambiguous; write one of: a100-40g,"),
        (("--method", "lorra"), "unknown method 'lorra'; did you mean 'lora'?"),
        (("--method", ""), "unknown method ''"),
    ],
)
def test_unknown_names(arguments: tuple[str, ...], message: str, complain: Complain) -> None:
    assert message in complain(*ESTIMATE, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch-size", "-3"), "'--batch-size': '-3' is no whole number from 1"),
        (("--batch-size", "2.5"), "'2.5' is no whole number"),
        (("--batch-size", "many"), "'many' is no whole number"),
        (("--batch-size", "9" * 5000), "is no whole number"),
        (("--grad-accum", "0"), "'--grad-accum': '0' is no whole number"),
        (("--seq-len", "0"), "'--seq-len': '0' is no whole number"),
        (("--target-len", "-1"), "'-1' is no whole number"),
        (("--gpus", "0"), "'--gpus': '0' is no whole number"),
        (("--sharding", "tensor"), "'tensor' is not one of 'ddp', 'fsdp', 'zero-1'"),
        (("--gpu-memory", "lots"), "'lots' is not a memory size"),
        (("--gpu-memory", "-4GiB"), "'-4GiB' is not a memory size"),
        (("--gpu-memory", "0"), "'0' is not a memory size"),
        (("--gpu-memory", "0.2"), "must be positive"),
        (("--gpu-memory", "9" * 400), "memory"),
        (("--dtype", "fp8"), "'fp8' is not one of 'bf16', 'fp16', 'fp32'"),
        (("--quantization", "int2"), "'int2' is not one of"),
        (("--optimizer", "adam"), "'adam' is not one of"),
        (("--attention", "fast"), "'fast' is not one of"),
        (("--gradient-checkpointing", "some"), "'some' is not one of"),
        (("--tokens", "-5"), "'-5' is no number of tokens"),
        (("--tokens", "1e99"), "'1e99' is no number of tokens"),
        (("--max-risk", "2"), "'2' is no number from 0 to 1"),
        (("--max-risk", "nan"), "'nan' is no number from 0 to 1"),
        (("--format", "xml"), "'xml' is not one of 'text', 'json'"),
        (("--rank", "0"), "'--rank': '0' is no whole number"),
        (("--alpha", "-1"), "'-1' is no number above 0"),
        (("--alpha", "inf"), "'inf' is no number above 0"),
        (("--dropout", "1.5"), "'1.5' is no number from 0 to 1"),
        (("--target-modules", ","), "--target-modules names no module"),
        (("--set", "rank"), "--set 'rank' is not of the form KEY=VALUE"),
        (("--set", "=8"), "--set '=8' is not of the form KEY=VALUE"),
        (("--set", "rang=8"), "lora has no setting 'rang'; it has: alpha,"),
        (("--set", "rank=big"), "lora setting 'rank' is 'big'; it must be a whole"),
        (("--set", "rank=-8"), "lora setting 'rank' is -8; it must be a whole number of 1 or more"),
        (("--set", "rank=true"), "lora setting 'rank' is True; it must be a whole number"),
        (("--set", "rank=2.5"), "lora setting 'rank' is 2.5; it must be a whole number"),
        (("--set", "dropout=2"), "lora setting 'dropout' is 2; it must be a number from 0 to 1"),
        (("--set", "alpha=-2"), "lora setting 'alpha' is -2; it must be a number of 0 or more"),
        (("--set", "alpha=[1]"), "lora setting 'alpha' is (1,); it must be a number"),
        (("--set", "rank=NaN"), "lora setting 'rank' is 'NaN'"),
        (("--set", 'rank={"a": 1}'), "is nested"),
        (("--set", "rank=" + "[" * 100_000), "lora setting 'rank' is '[["),
        (("--rank", "4", "--set", "rank=8"), "setting 'rank' is given twice"),
        (("--method", "full", "--rank", "8"), "full has no setting 'rank'; it has: none"),
        (("--model", "bert-base-uncased", "--seq-len", "513"), "beyond the 512 positions of"),
    ],
)
def test_wrong_values(arguments: tuple[str, ...], message: str, complain: Complain) -> None:
    assert message in complain(*ESTIMATE, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "lora,magic"), "unknown method 'magic'"),
        (("--methods", ","), "--methods names no method"),
        (("--effective-batch-size", "0"), "'0' is no whole number"),
        (("--max-hours", "0"), "'0' is no number above 0"),
        (("--max-usd", "much"), "'much' is no number above 0"),
        (("--max-hours", "3"), "--max-hours limits the whole job; give its size with --tokens"),
        (("--max-usd", "9"), "--max-usd limits the whole job; give its size with --tokens"),
        (("--reduction", "8"), "--reduction"),
        (("--export", "excel"), "'excel' is not one of"),
        (("--max-stored", "small"), "'small' is not a memory size"),
        (("--epochs", "2", "--steps", "10"), "epochs and steps are both given"),
        (("--examples", "9", "--dataset", "x.jsonl"), "x.jsonl"),
    ],
)
def test_wrong_questions(arguments: tuple[str, ...], message: str, complain: Complain) -> None:
    assert message in complain(*RECOMMEND, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu-memory", "9GiB"), "--gpu-memory is the memory of a named GPU; add --gpu NAME"),
        (("--max-usd-per-hour", "0.001"), "no GPU costs so little"),
        (("--tokenizer", "x"), "--tokenizer counts the tokens of a data set; add --dataset FILE"),
    ],
)
def test_wrong_questions_about_any_gpu(
    arguments: tuple[str, ...], message: str, complain: Complain
) -> None:
    assert message in complain("recommend", "--model", "t5-small", *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "t5-small", "--method", "bitfit"), "bias"),
        (("--method", "prefix-tuning", "--gradient-checkpointing"), "checkpointing"),
    ],
)
def test_impossible_combinations(
    arguments: tuple[str, ...], message: str, complain: Complain
) -> None:
    assert message in complain(*ESTIMATE, *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x00\xff\xfe\x80", "is not UTF-8 text"),
        (b"{'model_type': 't5'}", "is not valid JSON (line 1, column 2"),
        (b"[1, 2]", "holds a JSON list, not an object"),
        (b"{}", "has no key 'model_type'"),
        (b'{"model_type": 5}', "'model_type' is 5"),
        (b"[" * 100_000, "nesting"),
    ],
)
def test_broken_configs(content: bytes, message: str, tmp_path: Path, complain: Complain) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert message in complain(*ESTIMATE, "--model", str(path))
    assert message in complain(*ESTIMATE, "--model", str(tmp_path))


def test_paths_that_hold_no_model(tmp_path: Path, complain: Complain) -> None:
    assert "does not exist" in complain(*ESTIMATE, "--model", str(tmp_path / "none.json"))
    assert "does not exist" in complain(*ESTIMATE, "--model", "./none")
    assert "holds no config.json" in complain(*ESTIMATE, "--model", str(tmp_path))
    assert "unknown model" in complain(*ESTIMATE, "--model", "a\0b")


def test_unwritable_outputs(tmp_path: Path, complain: Complain) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is a directory" in complain(*ESTIMATE, "--out", str(tmp_path))
    assert "is no directory" in complain(*ESTIMATE, "--out", str(file / "result.txt"))
    assert "is no directory" in complain(*ESTIMATE, "--out", str(tmp_path / "none" / "result"))
    assert "is a directory" in complain("list", "gpus", "--out", "")
    too_long = str(tmp_path / ("x" * 300))
    assert "cannot be written" in complain("list", "gpus", "--out", too_long)


def test_auto_without_a_driver_library(monkeypatch: pytest.MonkeyPatch, complain: Complain) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    complaint = complain(*ESTIMATE, "--gpu", "auto")
    assert "needs nvidia-ml-py (pip install nvidia-ml-py), or name it" in complaint


@pytest.fixture
def catalogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the bundled catalogs, in use; what was read of the bundled ones is forgotten."""
    folder = tmp_path / "catalogs"
    shutil.copytree(tables._CATALOGS, folder)
    monkeypatch.setattr(tables, "_CATALOGS", folder)
    forget_catalogs()
    yield folder
    forget_catalogs()


def forget_catalogs() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("peftadvisor."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@pytest.mark.parametrize("name", ["gpus.csv", "gpu_mamf.csv", "models.csv", "model_configs.jsonl"])
@pytest.mark.parametrize("damage", ["empty", "missing", "binary"])
def test_damaged_catalogs(name: str, damage: str, catalogs: Path, complain: Complain) -> None:
    path = catalogs / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x80\x81")
    assert "reinstall peftadvisor" in complain(*ESTIMATE)


def test_a_damaged_price_list(catalogs: Path, complain: Complain) -> None:
    (catalogs / "prices.csv").write_text("")
    assert "prices.csv is empty" in complain("list", "prices")
