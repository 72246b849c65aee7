"""Shells ask the real console script what to complete, by environment variables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from peftadvisor.cli.main import main

# What a console script does, as pip writes it.
SCRIPT = "import sys; from peftadvisor.cli.main import main; sys.exit(main())"


def completed(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """What bash is offered for the last of the words, which may be empty."""
    monkeypatch.setenv("_PEFTADVISOR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("peftadvisor do", ["plain,doctor"]),
        ("peftadvisor estimate --model t5-11", ["plain,t5-11b"]),
        ("peftadvisor estimate --model google-t5/t5-11", ["plain,google-t5/t5-11b"]),
        ("peftadvisor estimate --model ./conf", ["file,./conf"]),
        ("peftadvisor recommend --gpu rtx-3090", ["plain,rtx-3090", "plain,rtx-3090ti"]),
        ("peftadvisor check --gpu AUT", ["plain,auto"]),
        ("peftadvisor profile --method houl", ["plain,houlsby"]),
        ("peftadvisor compare --methods lora,qlo", ["plain,lora,qlora"]),
        ("peftadvisor compare --methods lora,lora-al", ["plain,lora,lora-all"]),
        ("peftadvisor recommend --methods al", ["plain,all"]),
        ("peftadvisor recommend --methods lora,al", []),
        ("peftadvisor list gp", ["plain,gpus"]),
        ("peftadvisor list methods houl", ["plain,houlsby"]),
        ("peftadvisor list prices a", []),
        ("peftadvisor check conf", ["file,conf"]),
        ("peftadvisor validate rows", ["file,rows"]),
        ("peftadvisor estimate --quantization nf4-", ["plain,nf4-dq"]),
    ],
)
def test_what_is_offered(
    words: str,
    offered: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert completed(words, monkeypatch, capsys) == offered


def test_no_method_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offered = completed("peftadvisor compare --methods ia3,ia", monkeypatch, capsys)
    assert "plain,ia3,ia3" not in offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str) -> None:
    asked = {**os.environ, "_PEFTADVISOR_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=asked)
    assert "_PEFTADVISOR_COMPLETE" in done.stdout
    if not done.stderr:  # where bash itself is there, click looks at its version
        assert done.returncode == 0


def test_it_is_quick_since_nothing_heavy_is_loaded() -> None:
    asked = {
        **os.environ,
        "_PEFTADVISOR_COMPLETE": "bash_complete",
        "COMP_WORDS": "peftadvisor estimate --method lo",
        "COMP_CWORD": "3",
    }
    code = (
        "import sys; from peftadvisor.cli.main import main; main([]); "
        "print(*sys.modules, sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=asked)
    assert "plain,lora" in done.stdout
    loaded = {name.partition(".")[0] for name in done.stderr.splitlines()}
    assert loaded & {"torch", "transformers", "peft", "rich", "jinja2"} == set()
