"""Other estimators from PyPI on the published rows: their predictions, into a CSV.

    python benchmarks/rivals.py MEASUREMENTS.csv [--out docs/accuracy/rivals.csv]

Each is installed, at the version pinned here, into a throwaway environment under the temporary
folder, and asked for every row that ``peftadvisor validate`` reads as a run, with the same batch
and lengths that our own prediction gets. One that the CSV holds already is not asked again.
Nothing is downloaded but the packages: what the Hub would tell them comes from our catalog.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from peftadvisor.advisor.estimating import with_implied_quantization
from peftadvisor.data.measurements import Measurement, read_measurements
from peftadvisor.integrations.published import Published, as_run

ROOT = Path(__file__).resolve().parent.parent
CALLS = Path(__file__).resolve().parent / "rival_calls.py"
PREDICTIONS = ROOT / "docs" / "accuracy" / "rivals.csv"
VERSIONS = {
    "fitcheck-llm": "0.3.1",
    "canifinetune": "0.4.1",
    "ftuneai": "0.4.1",
    "fitscout": "0.1.1",
}
"""Newest on PyPI when the CSV was made."""
TIMED = ("ftuneai",)
"""Those that predict time."""
METHODS = {"full": "full", "lora": "lora", "rslora": "lora", "qlora": "qlora"}
"""Ours in their words; rank-stabilized LoRA differs from LoRA in a factor alone."""
COLUMNS = ("row_id", "rival", "version", "date", "kind", "predicted", "verdict", "note")


def read_runs(path: Path) -> list[tuple[Measurement, Published]]:
    """The rows that are runs on one GPU: few of the others know more."""
    read = [(row, as_run(row)) for row in read_measurements(path)]
    runs = [(row, run) for row, run in read if isinstance(run, Published)]
    return [(row, run) for row, run in runs if run.run.gpus == 1]


def case_of(published: Published) -> dict[str, Any]:
    """A run in plain words, for ``rival_calls.py``."""
    run = with_implied_quantization(published.run)
    training, settings = run.training, dict(run.method.settings)
    return {
        "model": run.model.id,
        "config": dict(run.model.config),
        "parameters": run.model.checkpoint_parameters,
        "method": METHODS[run.method.name],
        "rank": settings.get("rank"),
        "targets": _present(settings.get("target_modules", ()), run.model.model_type),
        "dtype": training.dtype,
        "quantization": training.quantization,
        "batch": training.micro_batch_size,
        "grad_accum": training.gradient_accumulation_steps,
        "seq_len": training.seq_len,
        "timed_seq_len": published.timed.training.seq_len,
        "checkpointing": training.gradient_checkpointing != "none",
        "optimizer": training.optimizer,
        "attention": training.attention,
        "gpu": run.gpu.id,
        "gpu_bytes": run.gpu.usable_bytes,
    }


def _present(targets: tuple[str, ...], model_type: str) -> list[str]:
    """Published rows list modules of several architectures; those that the model has."""
    fused = model_type == "gpt_bigcode"
    return [name for name in targets if (name == "c_attn") == fused]


def predictions(name: str, runs: list[tuple[Measurement, Published]]) -> Iterator[tuple[Any, ...]]:
    """The lines of one estimator."""
    head = (name, VERSIONS[name], date.today().isoformat())
    kinds = ("memory", "time") if name in TIMED else ("memory",)
    asked = [(row, run) for row, run in runs if run.run.method.name in METHODS]
    answers = dict(
        zip(
            (row.row_id for row, _ in asked),
            _ask(name, [case_of(run) for _, run in asked]),
            strict=True,
        )
    )
    for row, run in runs:
        other = f"no method of its is {run.run.method.name}"
        found = answers.get(row.row_id, {f"{kind}_note": other for kind in kinds})
        for kind in kinds:
            value = found.get(kind)
            shown = "" if value is None else round(value) if kind == "memory" else f"{value:.6g}"
            verdict = found.get("verdict", "") if kind == "memory" else ""
            yield row.row_id, *head, kind, shown, verdict, found.get(f"{kind}_note", "")


def _ask(name: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    python = _environment(name)
    if python is None:
        note = "could not be installed"
        return [{"memory_note": note, "time_note": note} for _ in cases]
    done = subprocess.run(
        [str(python), str(CALLS), name],
        input=json.dumps(cases),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def _environment(name: str) -> Path | None:
    """Python of an environment that holds the package, made if it is missing."""
    folder = Path(tempfile.gettempdir()) / "peftadvisor-rivals" / f"{name}-{VERSIONS[name]}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    package = f"{name}=={VERSIONS[name]}"
    installed = subprocess.run([str(python), "-m", "pip", "install", "-qq", package])
    if installed.returncode:
        return None
    ready.touch()
    return python


def read_predictions(path: Path = PREDICTIONS) -> list[dict[str, str]]:
    """The lines of the CSV, none where there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Ask those that the CSV lacks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measurements", type=Path)
    parser.add_argument("--out", type=Path, default=PREDICTIONS)
    options = parser.parse_args()
    runs = read_runs(options.measurements)
    lines = [tuple(line[column] for column in COLUMNS) for line in read_predictions(options.out)]
    wanted = {row.row_id for row, _ in runs}
    for name, version in VERSIONS.items():
        if wanted <= {line[0] for line in lines if line[1:3] == (name, version)}:
            continue
        lines = [line for line in lines if line[1] != name] + list(predictions(name, runs))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *lines])
        print(f"{name} {version}: done", flush=True)


if __name__ == "__main__":
    main()
