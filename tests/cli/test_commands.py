"""Options become specs, results reach stdout or a file, verdicts become exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftadvisor import advisor
from peftadvisor.advisor.question import Needs
from peftadvisor.cli.main import main
from peftadvisor.cli.output import progress
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.profiles import Estimate
from peftadvisor.specs import Budget, Job, RunSpec, TrainingSpec
from peftadvisor.units import GIB

ESTIMATE = ("estimate", "--model", "t5-small", "--gpu", "a100-40g", "--method", "lora")
MAIN = "import sys; from peftadvisor.cli.main import main; sys.exit(main())"


class Stub:
    """Stands for the advisor: remembers what it was asked, answers what it was given."""

    def __init__(self, estimate: Estimate, recommendation: Any) -> None:
        self.answer: Any = estimate
        self.recommendation = recommendation
        self.asked: Any = None
        self.budget: Budget | None = None

    def estimate(self, run: RunSpec, *, budget: Budget, progress: Any = None) -> Estimate:
        self.asked, self.budget = run, budget
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, Estimate)
        return self.answer

    def recommend(self, question: Any, progress: Any = None) -> Any:
        self.asked = question
        return self.recommendation


@pytest.fixture
def stub(estimate: Estimate, recommendation: Any, monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub(estimate, recommendation)
    monkeypatch.setattr(advisor, "estimate", stub.estimate, raising=False)
    monkeypatch.setattr(advisor, "recommend", stub.recommend, raising=False)
    return stub


def test_defaults(stub: Stub) -> None:
    assert main(ESTIMATE) == 0
    assert stub.asked.model.id == "google-t5/t5-small"
    assert stub.asked.gpu.id == "a100-40g"
    assert stub.asked.training == TrainingSpec()
    assert stub.asked.method.settings == ()
    assert (stub.asked.gpus, stub.asked.sharding) == (1, "ddp")
    assert stub.asked.expandable_segments is False
    assert stub.budget == Budget()


def test_every_option_of_estimate_reaches_the_run(stub: Stub) -> None:
    options = (
        "--gpus 2 --sharding fsdp --expandable-segments --gpu-memory 24GiB "
        "--batch-size 8 --grad-accum 4 --seq-len 1024 --target-len 64 "
        "--padded --dtype fp16 --amp --attention eager "
        "--quantization nf4 --optimizer adafactor --gradient-checkpointing reentrant --rank 32 "
        "--alpha 64 --dropout 0.1 --target-modules q,v --tokens 1.5M --max-risk 0.1"
    )
    assert main([*ESTIMATE, *options.split()]) == 0
    run = stub.asked
    assert run.training == TrainingSpec(
        micro_batch_size=8,
        gradient_accumulation_steps=4,
        seq_len=1024,
        target_len=64,
        padded=True,
        dtype="fp16",
        amp=True,
        attention="eager",
        quantization="nf4",
        optimizer="adafactor",
        gradient_checkpointing="reentrant",
    )
    expected = {"rank": 32, "alpha": 64, "dropout": 0.1, "target_modules": ("q", "v")}
    assert dict(run.method.settings) == expected
    assert type(dict(run.method.settings)["alpha"]) is int
    assert (run.gpus, run.sharding, run.expandable_segments) == (2, "fsdp", True)
    assert run.gpu.usable_bytes == 24 * GIB
    assert stub.budget == Budget(total_tokens=1_500_000, max_oom_risk=0.1)
    hash(run)


def test_checkpointing_without_a_value(stub: Stub) -> None:
    assert main([*ESTIMATE, "--gradient-checkpointing", "--batch-size", "2"]) == 0
    assert stub.asked.training.gradient_checkpointing == "non-reentrant"
    assert stub.asked.training.micro_batch_size == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rank=4", 4),
        ("dropout=0.5", 0.5),
        ("target_modules=all-linear", "all-linear"),
        ('target_modules=["q", "v"]', ("q", "v")),
        ("target_modules=null", None),
    ],
)
def test_set_is_typed_by_json(text: str, value: Any, stub: Stub) -> None:
    assert main([*ESTIMATE, "--set", text]) == 0
    assert stub.asked.method.settings == ((text.partition("=")[0], value),)


def test_a_short_model_gets_a_short_sequence(stub: Stub, tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_positions": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main([*ESTIMATE, "--model", str(tmp_path)]) == 0
    assert stub.asked.training.seq_len == 100
    assert stub.asked.model.provenance.startswith("local file")


def test_recommend_asks_the_question(stub: Stub) -> None:
    options = (
        "--methods lora,full --tokens 10M --max-hours 5 --max-usd 20 --seq-len 256 "
        "--gpus 4 --sharding zero-2 --expandable-segments --task code --examples 500 --epochs 2 "
        "--mergeable --max-stored 50MiB --max-memory 20GiB --rank 4 --optimizer sgd "
        "--gradient-checkpointing none --test-examples 90"
    )
    command = ("recommend", "--model", "t5-small", "--gpu", "a100-40g", *options.split())
    assert main(command) == 0
    question = stub.asked
    assert question.methods == ("lora", "full")
    assert question.effective_batch_size == 16
    (place,) = question.places
    assert (place.gpu.id, place.count, place.sharding) == ("a100-40g", 4, "zero-2")
    assert question.job == Job(task="code", examples=500, epochs=2.0, tokens_per_example=256)
    assert question.needs == Needs(mergeable=True, max_stored_bytes=50 * 2**20)
    assert (question.settings, question.test_examples) == ((("rank", 4),), 90)
    assert (question.optimizers, question.checkpointing) == (("sgd",), ("none",))
    assert question.expandable_segments is True
    assert question.training == TrainingSpec(seq_len=256, optimizer="sgd")
    limits = {"max_hours": 5.0, "max_usd": 20.0, "max_memory_bytes": 20 * 2**30}
    assert question.budget == Budget(total_tokens=10**7, **limits)


def test_without_a_gpu_every_one_with_a_price_is_a_candidate(stub: Stub) -> None:
    assert main(["recommend", "--model", "t5-small", "--max-usd-per-hour", "1"]) == 0
    places = stub.asked.places
    assert len({place.gpu.id for place in places}) > 10
    assert all((place.usd_per_hour or 9) <= 1 for place in places)


@pytest.mark.parametrize(("given", "asked"), [((), None), (("--methods", "all"), ("all",))])
def test_recommend_tries_all_methods_when_told(given: Any, asked: Any, stub: Stub) -> None:
    assert main(["recommend", "--model", "t5-small", "--gpu", "a100-40g", *given]) == 0
    assert stub.asked.methods == asked


@pytest.mark.parametrize(("verdict", "code"), [("fits", 0), ("tight", 4), ("oom", 3)])
def test_strict_turns_the_verdict_into_a_code(verdict: Any, code: int, stub: Stub) -> None:
    stub.answer = replace(stub.answer, verdict=verdict)
    assert main(ESTIMATE) == 0
    assert main([*ESTIMATE, "--strict"]) == code


def test_json_is_the_contract(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ESTIMATE, "--format", "json"]) == 0
    printed = capsys.readouterr()
    expected = json.loads(json.dumps(stub.answer.to_dict()))
    assert json.loads(printed.out) == expected
    assert printed.err == ""


def test_out_gets_what_stdout_would(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ESTIMATE) == 0
    on_screen = capsys.readouterr().out
    assert main([*ESTIMATE, "--out", str(tmp_path / "result.txt")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "result.txt").read_text(encoding="utf-8") == on_screen


@pytest.mark.parametrize("kind", ["gpus", "methods", "models", "prices"])
def test_list(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)[kind]
    assert rows
    assert main(["list", kind]) == 0
    first = str(next(iter(rows[0].values())))
    assert first in capsys.readouterr().out


def test_list_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "gpus", "A100-80", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["gpus"]
    assert [row["id"] for row in rows] == ["a100-80g", "a100-80g-pcie"]
    assert main(["list", "gpus", "abacus", "--format", "json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["gpus"] == []
    assert printed.err == "peftadvisor: none of the gpus holds 'abacus'\n"


def test_models_that_need_torch_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "models", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    needs = {row["id"]: row["needs"] for row in rows}
    assert needs["meta-llama/Llama-3.1-8B-Instruct"] is None
    assert needs["meta-llama/Llama-3.1-405B"] == "torch"
    assert sum(need is None for need in needs.values()) >= 118


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "recommend" in printed.err


def test_our_own_failures_are_one_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer = PeftAdvisorError("two\nlines")
    assert main(ESTIMATE) == 1
    assert capsys.readouterr().err == "peftadvisor: error: two lines\n"


def test_surprises_are_one_line(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer = KeyError("nobody\x1bthought of")
    assert main(ESTIMATE) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("peftadvisor: internal error: KeyError: ")
    assert printed.count("\n") == 1
    assert main(["--debug", *ESTIMATE]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_by_environment(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer = ZeroDivisionError()
    monkeypatch.setenv("PEFTADVISOR_DEBUG", "1")
    assert main(ESTIMATE) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(advisor, "estimate", interrupt)
    assert main(ESTIMATE) == 130
    assert capsys.readouterr().err.strip() == "peftadvisor: error: interrupted"


def test_progress_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    from peftadvisor.cli import output

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(output, "_SILENCE_S", 0.01)
    before = set(threading.enumerate())
    with progress("Waiting"):
        time.sleep(0.1)
        assert set(threading.enumerate()) != before
    deadline = time.monotonic() + 5  # rich stops its thread without waiting for it
    while set(threading.enumerate()) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) == before


def test_a_reader_that_leaves_is_no_error() -> None:
    pipe = subprocess.Popen(
        [sys.executable, "-c", MAIN, "list", "models", "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert pipe.stdout is not None
    pipe.stdout.read(1)
    pipe.stdout.close()
    _, errors = pipe.communicate()
    assert errors == b""
    assert pipe.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "list", "gpus"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    line = "peftadvisor: error: cannot write to standard output (No space left on device)\n"
    assert done.stderr == line


def test_a_terminal_without_unicode() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "list", "prices"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0
    assert done.stderr == b""
    done.stdout.decode("ascii")
