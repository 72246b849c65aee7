"""``peftadvisor check``: gates, the baseline, several configs, the fix, and waiting for room.

The configs are runs of ours that ship recorded, so no torch is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftadvisor import check
from peftadvisor.cli.main import main
from peftadvisor.errors import UsageError
from peftadvisor.integrations.checked import Verdict

RUN: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B",
    "method": "lora-all",
    "method_config": {"rank": 16, "alpha": 32},
    "training": {"micro_batch_size": 8, "gradient_accumulation_steps": 2, "seq_len": 1024},
    "job": {"steps": 1000},
}
FITS, TOO_SMALL = "h200", "rtx-4090"


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("peftadvisor.simulator.obtain.find_spec", lambda name: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def config(name: str = "run.json", **changes: Any) -> str:
    Path(name).write_text(json.dumps({**RUN, **changes}, indent=2) + "\n")
    return name


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["check", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, config(), "--gpu", FITS)
    assert (code, err) == (0, "")
    assert out.startswith("✔ fits")
    assert "training.micro_batch_size" in out or "micro_batch_size: 8" in out


def test_the_fix_fits_and_touches_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    path = config()
    code, out, err = answer(capsys, path, "--gpu", TOO_SMALL, "--fix", "fixed.json")
    assert code == 3
    assert "fixed.json: micro-batch" in err
    before, after = json.loads(Path(path).read_text()), json.loads(Path("fixed.json").read_text())
    changed = {k for k in after["training"] if before["training"].get(k) != after["training"][k]}
    assert {k: v for k, v in before.items() if k != "training"} == {
        k: v for k, v in after.items() if k != "training"
    }
    assert changed == {"micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}
    batch = [r["training"]["micro_batch_size"] for r in (before, after)]
    accumulation = [r["training"]["gradient_accumulation_steps"] for r in (before, after)]
    assert batch[0] * accumulation[0] == batch[1] * accumulation[1]
    assert answer(capsys, "fixed.json", "--gpu", TOO_SMALL)[0] == 0
    assert '-    "micro_batch_size": 8,' in out


@pytest.mark.parametrize(
    ("path", "said"),
    [("run.json", "name a new file"), ("no/such/folder/x", "choose another path")],
)
def test_where_no_fix_is_written(path: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = answer(capsys, config(), "--gpu", TOO_SMALL, "--fix", path)
    assert code == 2
    assert said in err
    assert json.loads(Path("run.json").read_text()) == RUN


def test_nothing_to_fix_and_nothing_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing to change" in answer(capsys, config(), "--gpu", FITS, "--fix", "x")[2]
    large = config(model="meta-llama/Llama-3.1-70B")
    code, _, err = answer(capsys, large, "--gpu", "rtx-3060-12g", "--fix", "x")
    assert code == 3
    assert "no change" in err
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        (("--max-hours", "1000"), 0),
        (("--max-hours", "0.01"), 3),
        (("--max-usd", "0.01"), 3),
        (("--max-usd", "10000"), 0),
    ],
)
def test_gates(gate: tuple[str, str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    found, out, _ = answer(capsys, config(), "--gpu", FITS, *gate)
    assert found == code
    assert (gate[0].removeprefix("--") in out) == (code == 3)


def test_a_gate_on_what_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = answer(capsys, config(job={}), "--gpu", FITS, "--max-hours", "1")
    assert code == 2
    assert "add --examples" in err
    told = ("--examples", "10k", "--max-hours", "1000")
    assert answer(capsys, config(job={}), "--gpu", FITS, *told)[0] == 0


def test_a_risk_that_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    """Between fitting and running out: which of both depends on the risk that is accepted."""
    codes = {answer(capsys, config(), "--gpu", FITS, "--max-risk", r)[0] for r in ("0", "1")}
    assert codes <= {0, 4}


def test_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, config(), "--gpu", FITS, "--format", "json")
    Path("earlier.json").write_text(out)
    assert code == 0
    same = (config(), "--gpu", FITS, "--baseline", "earlier.json")
    assert answer(capsys, *same)[0] == 0
    training = {**RUN["training"], "micro_batch_size": 16}
    code, out, _ = answer(capsys, config(training=training), *same[1:])
    assert code == 3
    assert "baseline-memory" in out
    _, _, err = answer(capsys, config("other.json"), *same[1:])
    assert "says nothing of other.json" in err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checks": 3}', '{"checks": [{"config": 1}]}'])
def test_what_is_no_baseline(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("earlier.json").write_text(text)
    code, _, err = answer(capsys, config(), "--gpu", FITS, "--baseline", "earlier.json")
    assert code == 2
    assert "--format json" in err


def test_the_worst_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    small = config("small.json", model="meta-llama/Llama-3.2-1B", training={"seq_len": 256})
    code, out, _ = answer(capsys, small, config(), "--gpu", TOO_SMALL, "--format", "json")
    assert code == 3
    assert [c["exit_code"] for c in json.loads(out)["checks"]] == [0, 3]
    code, _, err = answer(capsys, small, config(), "--gpu", TOO_SMALL, "--fix", "x")
    assert code == 2
    assert "one config" in err


def test_waiting_for_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readings = iter([2 * 2**30, 3 * 2**30, 140 * 2**30])
    monkeypatch.setattr("peftadvisor.cuda.waiting.free_bytes", lambda: next(readings))
    monkeypatch.setattr("peftadvisor.cuda.waiting.PAUSE_S", 0.001)
    code, _, err = answer(capsys, config(), "--gpu", FITS, "--watch-free")
    assert code == 0
    assert "is free" in err
    assert next(readings, None) is None


def test_waiting_in_vain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("peftadvisor.cuda.waiting.free_bytes", lambda: 2 * 2**30)
    code, _, err = answer(capsys, config(), "--gpu", FITS, "--watch-free", "--watch-s", "1")
    assert code == 3
    assert "after 1 s only" in err


def test_in_python() -> None:
    verdict = check(config(), TOO_SMALL)
    assert isinstance(verdict, Verdict)
    assert (verdict.exit_code, verdict.config.tool) == (3, "runspec")
    assert verdict.fix is not None
    assert verdict.fix.estimate.verdict == "fits"
    with pytest.raises(UsageError, match="unknown GPU"):
        check(config(), "no-such-card")
