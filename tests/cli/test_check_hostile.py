"""``peftadvisor check`` on files that nobody would call configs: one clear line, and soon."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from peftadvisor.cli.main import main
from tests.config_mutations import mutated, texts

CODES = {0, 2, 3, 4}
MUTATIONS = 1000  # benchmarks/mutate_configs.py tries 5,000


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is recorded: what ships answers, or the answer is what to install."""
    monkeypatch.setattr("peftadvisor.simulator.obtain.find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def answer(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["check", str(path), "--gpu", "a100-80g"])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err + printed.out
    assert "internal error" not in printed.err
    assert code in CODES
    assert code != 2 or printed.err.count("\n") == 1
    return code, printed.err


def test_mutated_configs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, files = random.Random(0), texts()
    path = tmp_path / "config.yaml"
    for number in range(MUTATIONS):
        content = mutated(rng, rng.choice(files))
        path.write_bytes(content)
        try:
            answer(path, capsys)
        except (AssertionError, Exception):
            print(f"mutation {number}: {content!r}")
            raise


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "empty": b"",
    "blank": b" \n\t\n",
    "bomb": BOMB.encode(),
    "deep": b"[" * 10_000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(2_000)).encode(),
    "deep json": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "binary": bytes(range(256)) * 20,
    "object": b"base_model: !!python/object/apply:os.system ['true']\n",
    "own tag": b"base_model: !mine x\n",
    "list": b"- a\n- b\n",
    "text": b"just words",
    "number": b"42",
    "two documents": b"a: 1\n---\nb: 2\n",
    "odd keys": b"1: a\n[x]: b\n",
    "nothing known": b"hello: world\n",
    "large": b"a: b\n" * (50 * 2**20 // 5),
    "long line": b"base_model: " + b"x" * 200_000,
    "utf-16": "base_model: x".encode("utf-16"),
    "nul": b"base_model: \x00\n",
    "duplicate keys": b"base_model: a\n" * 1000,
    "recursive": b"a: &a {b: *a}\nbase_model: x\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(HOSTILE[name])
    started = time.monotonic()
    code, said = answer(path, capsys)
    assert code == 2
    assert "config.yaml" in said
    assert len(said) < 700
    assert time.monotonic() - started < 10  # 2 s on an idle machine; no timing is asserted here


def test_paths_that_are_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop, fifo = tmp_path / "loop", tmp_path / "fifo"
    loop.symlink_to(loop)
    os.mkfifo(fifo)
    unreadable = tmp_path / "nothing" / "config.yaml"
    for path in (loop, fifo, tmp_path, unreadable, Path("/dev/zero"), Path("a\x00b")):
        code, said = answer(path, capsys)
        assert code == 2, said
