"""``peftadvisor report``: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftadvisor.cli.main import main
from peftadvisor.profiles import Estimate

MODEL = ["--model", "meta-llama/Llama-3.1-8B"]


@pytest.fixture
def written(estimate: Estimate, tmp_path: Path) -> str:
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(estimate.to_dict()), encoding="utf-8")
    return str(path)


def test_a_page_of_a_file(
    written: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", written]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "peftadvisor: peftadvisor-report.html is written\n"
    page = (tmp_path / "peftadvisor-report.html").read_text(encoding="utf-8")
    assert "lora on acme/seq2seq-11b, acme-40g" in page


def test_markdown_and_figures(written: str, tmp_path: Path) -> None:
    text, figure = tmp_path / "r.md", tmp_path / "f.svg"
    assert main(["report", written, "--format", "markdown", "--out", str(text)]) == 0
    assert text.read_text(encoding="utf-8").startswith("# lora on acme/seq2seq-11b, acme-40g\n")
    assert main(["report", written, "--figure", "memory-bar", "--out", str(figure)]) == 0
    assert figure.read_text(encoding="utf-8").startswith("<svg")


def test_a_sweep_alone(tmp_path: Path) -> None:
    out = tmp_path / "sweep.md"
    run = [*MODEL, "--gpu", "rtx-4090", "--method", "lora", "--sweep", "batch"]
    assert main(["report", *run, "--format", "markdown", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "## How far batch and length can go" in text
    assert "| 1 (this run) |" in text
    assert "Cost by GPU" not in text


def test_methods_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "methods.html"
    run = [*MODEL, "--gpu", "rtx-4090", "--methods", "lora,ia3"]
    assert main(["report", *run, "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert 'id="methods-section"' in page
    assert 'id="what-if-section"' in page


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "pass FILE.json, or --model NAME to work an answer out"),
        (["a.json", "--gpus", "2"], "--gpus: the file says it all; leave it out"),
        ([*MODEL, "--batch-size", "2"], "--batch-size: it is of one run; add --method NAME"),
        ([*MODEL, "--set", "a=1"], "--set: it is of one run; add --method NAME"),
        ([*MODEL, "--methods", "lora", "--rank", "4"], "--rank: it is of one method"),
        ([*MODEL, "--method", "lora", "--methods", "ia3"], "keep one of them"),
        ([*MODEL, "--method", "lora"], "--gpu is missing; see: peftadvisor list gpus"),
        ([*MODEL, "--method", "lora", "--gpu", "nogpu"], "unknown GPU 'nogpu'"),
        (["nowhere.json"], "nowhere.json is no file"),
        (["a.json", "--out", "/nowhere/page.html"], "--out /nowhere/page.html cannot be made"),
    ],
)
def test_what_is_refused(
    options: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *options]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
