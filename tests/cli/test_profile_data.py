"""``peftadvisor profile`` with the user's own weights and texts, and every way they can be bad."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("peft")

from peftadvisor.cli.main import main  # noqa: E402
from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.profilers.checkpoints import checked_model, load_model  # noqa: E402
from peftadvisor.profilers.conformance import MODELS  # noqa: E402
from peftadvisor.simulator.build import build_model  # noqa: E402
from peftadvisor.specs import TrainingSpec  # noqa: E402

LORA = ("--method", "lora", "--dtype", "fp32", "--steps", "1")
MEASURE = (*LORA, "--engine", "measure")
WORDS = {"<unk>": 0, "<pad>": 1, "</s>": 2, "a": 3, "b": 4}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTADVISOR_STORE", str(tmp_path / "profiles.db"))


def saved(kind: str, folder: Path, **options: Any) -> Any:
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(**MODELS[kind])
    cls = getattr(transformers, config.architectures[0])
    made = cls(config)
    made.save_pretrained(folder, **options)
    return made


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints and a tokenizer, for all tests."""
    folder = tmp_path_factory.mktemp("kept")
    for kind in ("llama", "t5", "bert"):
        saved(kind, folder / kind)
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def llama(kept: Path, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(kept / "llama", tmp_path / "llama"))


@pytest.fixture
def data(kept: Path, tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """``data(*rows)``: the options for a JSONL file of these rows."""

    def options(*rows: Any) -> tuple[str, ...]:
        path = tmp_path / "texts.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return ("--data", str(path), "--tokenizer", str(kept / "tokenizer.json"))

    return options


@pytest.fixture
def complain(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``profile``, which must complain in one line; gives the line."""

    def run(*arguments: str) -> str:
        assert main(["profile", *arguments]) == 2
        printed = capfd.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("peftadvisor: error: ")
        assert printed.err.count("\n") == 1
        return printed.err

    return run


@pytest.mark.parametrize("kind", ["llama", "t5", "bert"])
def test_the_weights_are_those_of_the_checkpoint(kind: str, kept: Path) -> None:
    folder = str(kept / kind)
    spec = checked_model(folder, None)
    training = TrainingSpec(dtype="fp32")
    loaded = load_model(folder, spec, training, "cpu")
    random = build_model(spec, training, "cpu")
    assert type(loaded) is type(random)
    assert loaded.training
    original = type(loaded).from_pretrained(folder).state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    low = load_model(folder, spec, TrainingSpec(dtype="bf16"), "cpu")
    built = build_model(spec, TrainingSpec(dtype="bf16"), "cpu")
    dtypes = {name: tensor.dtype for name, tensor in built.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in low.state_dict().items()} == dtypes


def test_a_checkpoint_and_texts_are_measured(
    kept: Path, data: Callable[..., tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{"body": "a b " * n} for n in (2, 3, 10, 11, 1, 1)]
    options = (*data(*rows), "--text-field", "body", "--padded", "--batch-size", "2")
    arguments = ["profile", "--checkpoint", str(kept / "llama"), *LORA, *options]
    assert main([*arguments, "--format", "json"]) == 0
    simulated, measured = json.loads(capfd.readouterr().out)["profiles"]
    assert simulated["training"] == measured["training"]
    assert measured["training"]["seq_len"] == 22
    assert simulated["parameters"] == measured["parameters"]
    assert simulated["phase_flops"] == measured["phase_flops"]
    peaks = [run["memory"]["allocated_peak_bytes"] for run in (simulated, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.001)
    # The batches are 6, 22 and 2 tokens long, two texts in each: 2 × (6 + 22 + 2) / 3 a step.
    time = measured["time"]
    assert time["tokens_per_s"] * time["step_s"] == pytest.approx(20)
    told = measured["provenance"]["recording"]
    assert f"weights of {kept / 'llama'}, 3 batches of" in told
    assert "2 to 22 tokens long" in told
    assert main(["profile", "export"]) == 0
    (row,) = csv.DictReader(io.StringIO(capfd.readouterr().out))
    assert (row["dataset"], row["seq_len"], row["seq_len_kind"]) == (options[1], "22", "longest")


def test_targets_and_packing(
    kept: Path, data: Callable[..., tuple[str, ...]], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = data(*({"text": "a " * 9, "out": "b " * n} for n in (1, 7, 3)))
    t5 = ("profile", "--checkpoint", str(kept / "t5"), *MEASURE, *rows, "--target-field", "out")
    assert main([*t5, "--padded", "--format", "json"]) == 0
    (measured,) = json.loads(capfd.readouterr().out)["profiles"]
    training = measured["training"]
    assert (training["seq_len"], training["target_len"]) == (9, 7)
    packed = ("profile", "--checkpoint", str(kept / "llama"), *MEASURE, *rows, "--seq-len", "13")
    assert main([*packed, "--format", "json"]) == 0
    (measured,) = json.loads(capfd.readouterr().out)["profiles"]
    assert measured["training"]["seq_len"] == 13


def test_the_model_may_be_named_as_well(
    kept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], complain: Callable[..., str]
) -> None:
    (tmp_path / "llama.json").write_text(json.dumps(MODELS["llama"]))
    named = ("--model", str(tmp_path / "llama.json"), *MEASURE, "--seq-len", "16")
    assert main(["profile", *named, "--checkpoint", str(kept / "llama")]) == 0
    capfd.readouterr()
    assert "model_type is t5, not llama" in complain(*named, "--checkpoint", str(kept / "t5"))
    wide = {**MODELS["llama"], "intermediate_size": 320}
    (tmp_path / "llama.json").write_text(json.dumps(wide))
    complaint = complain(*named, "--checkpoint", str(kept / "llama"))
    assert "intermediate_size is 160, not 320; leave --model out" in complaint


def with_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def with_index(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_half(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 320}))


def with_more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))


def with_quantization(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (with_pickle, "holds pickled weights only (pytorch_model.bin); save it again by"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "is an adapter; merge it"),
        (lambda f: with_index(f, "../weights.safetensors"), "no safetensors in the folder"),
        (lambda f: with_index(f, "weights.bin"), "no safetensors in the folder"),
        (lambda f: with_index(f, "other.safetensors"), "lacks other.safetensors; copy the whole"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "index.json is broken"),
        (with_half, "cannot be loaded"),
        (with_quantization, "holds quantized weights; give the plain ones"),
        (lambda f: shutil.rmtree(f), "is no folder"),
    ],
)
def test_bad_checkpoints(
    spoil: Callable[[Path], Any], complaint: str, llama: Path, complain: Callable[..., str]
) -> None:
    spoil(llama)
    assert complaint in complain("--checkpoint", str(llama), *MEASURE, "--seq-len", "16")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be loaded"),
        (with_other_sizes, "cannot be loaded"),
        (with_more_layers, r"lacks 9 weights of its layers \(model\.layers\.2\."),
    ],
)
def test_weights_of_another_model(
    spoil: Callable[[Path], Any], complaint: str, llama: Path
) -> None:
    spoil(llama)
    model = checked_model(str(llama), None)
    with pytest.raises(UsageError, match=complaint):
        load_model(str(llama), model, TrainingSpec(dtype="fp32"), "cpu")


def test_no_code_of_the_folder_runs(llama: Path, tmp_path: Path) -> None:
    (llama / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((llama / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (llama / "config.json").write_text(json.dumps(config))
    load_model(str(llama), checked_model(str(llama), None), TrainingSpec(dtype="fp32"), "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ([], (), "holds no text"),
        ([{"text": "a"}, {"body": "a"}], (), "line 2 has no key 'text'; its keys: body"),
        ([{"text": 5}], (), "line 1: 'text' is 5, not a text"),
        ([[1]], (), "line 1 holds no JSON object"),
        ([{"text": "a"}], ("--batch-size", "3"), "too few texts (1) for a micro-batch of 3"),
        ([{"text": "a"}], ("--target-field", "out"), "leave --target-field out"),
        ([{"text": "a"}], ("--engine", "simulate"), "--data is for measured runs"),
        ([{"text": "a"}], ("--tokenizer", "/none"), "there is no tokenizer at /none"),
        ([{"text": "a"}], ("--packed",), "too few tokens (1) for a packed micro-batch"),
    ],
)
def test_bad_texts(
    rows: list[Any],
    options: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    data: Callable[..., tuple[str, ...]],
    complain: Callable[..., str],
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MODELS["llama"]))
    base = ("--model", str(tmp_path), *LORA, "--padded", "--engine", "both")
    assert complaint in complain(*base, *data(*rows), *options)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--data", "texts.jsonl"), "--data needs --tokenizer"),
        (("--text-field", "body"), "--text-field describes texts; give their file with --data"),
        (("--target-field", "x"), "--target-field describes texts"),
        (("--tokenizer", "x"), "--tokenizer describes texts"),
        (("--checkpoint", "x", "--engine", "simulate"), "--checkpoint is for measured runs"),
        (("--checkpoint", ""), "--checkpoint '' is no folder"),
        (("--checkpoint", "a\0b"), "is no folder"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], complaint: str, complain: Callable[..., str]
) -> None:
    assert complaint in complain("--model", "t5-small", *LORA, *options)


def test_the_checkpoint_brings_its_tokenizer(
    kept: Path,
    llama: Path,
    data: Callable[..., tuple[str, ...]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(kept / "tokenizer.json", llama)
    rows = data({"text": "a b a"})[:2]
    arguments = ("--checkpoint", str(llama), *MEASURE, *rows, "--padded", "--format", "json")
    assert main(["profile", *arguments]) == 0
    (measured,) = json.loads(capfd.readouterr().out)["profiles"]
    assert measured["training"]["seq_len"] == 3
