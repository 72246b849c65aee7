"""Record the bundled models: what ships, with and without checkpointing, for batch 1 and more.

    python benchmarks/make_recordings.py [--models a,b] [--methods x,y] [--workers 2] [--out DIR]
                                         [--add-ranks]

Resumable: what is already recorded is skipped. Models of one shape share one file. With
``--add-ranks`` the recordings of methods that have a size, as LoRA its rank, are then made to hold
for every size: what is on file stays, and what one more rank adds is recorded besides.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from peftadvisor.advisor.estimating import implied_training
from peftadvisor.data.measured_runs import logged_counts
from peftadvisor.data.models import find_model
from peftadvisor.errors import PeftAdvisorError, UnsupportedError
from peftadvisor.methods import COMMON, find_method
from peftadvisor.simulator.library import BUNDLED, REPRESENTATIVE, Variant
from peftadvisor.simulator.recorder import InexactError
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.recording_files import unpack
from peftadvisor.simulator.regimes import Lengths, Regime, windows
from peftadvisor.specs import MethodSpec, TrainingSpec

LONGEST_WINDOW = 4096
SHIPPED = tuple(dict.fromkeys([*(row.method for row in logged_counts()), *COMMON]))
"""The methods of the survey's experiments, then what is tried where the user names none."""
MODELS = Path(__file__).with_name("bundled_models.txt")


def variants(model_id: str, methods: list[str], kernels: str) -> Iterator[Variant]:
    """Everything to record of one model."""
    model = find_model(model_id)
    for method in methods:
        for checkpointing in ("none", "non-reentrant"):
            training = implied_training(method, TrainingSpec(gradient_checkpointing=checkpointing))
            yield Variant(model, MethodSpec(name=method), training, kernels)  # type: ignore[arg-type]


def regimes(variant: Variant) -> Iterator[Regime]:
    """The pieces to record: batch 1 and more, within and beyond each attention window."""
    limits = [0, *(w for w in windows(variant.model.config) if w <= LONGEST_WINDOW)]
    for beyond in limits:
        for single in (False, True):
            yield Regime(single, "any", beyond)


def record_model(model_id: str, methods: list[str], kernels: str, out: Path) -> str:
    """Record all that is missing of one model; one line of what came of it."""
    started, made, skipped, failed = time.time(), 0, 0, []
    inexact: set[str] = set()  # methods that took aligned lengths only
    for variant in variants(model_id, methods, kernels):
        if variant.refusal():
            skipped += 1
            continue
        for regime in regimes(variant):
            if _present(variant, regime, out) is not None:
                skipped += 1
                continue
            try:
                if not _record(variant, regime, out, variant.method.name in inexact):
                    inexact.add(variant.method.name)
                made += 1
            except UnsupportedError as error:
                variant.keep_refusal(str(error), out)
                made += 1
                break
            except (PeftAdvisorError, RuntimeError) as error:
                failed.append(f"{variant.method.name}/{regime.key}: {error}")
    line = f"{model_id}: {made} made, {skipped} there, {time.time() - started:.0f} s"
    return "\n  ".join([line, *dict.fromkeys(failed)])


def grow_model(model_id: str, methods: list[str], kernels: str, out: Path) -> str:
    """Record what is missing of one model, then all its sizes; one line of what came of it."""
    recorded, started, made, skipped = (
        record_model(model_id, methods, kernels, out),
        time.time(),
        0,
        0,
    )
    failed = []
    for variant in variants(model_id, methods, kernels):
        for regime in regimes(variant):
            piece = _present(variant, regime, out)
            if piece is None or find_method(variant.method.name).size is None:
                continue
            recording = _read(variant, piece, out)
            if recording.growth is not None:
                skipped += 1
                continue
            try:
                variant.keep(piece, _growing(variant, piece, recording), out)
                made += 1
            except PeftAdvisorError as error:
                failed.append(f"{variant.method.name}/{piece.key} holds for one size: {error}")
    line = f"{recorded}; {made} grown, {skipped} grown before, {time.time() - started:.0f} s"
    return "\n  ".join([line, *dict.fromkeys(failed)])


def _growing(variant: Variant, piece: Regime, recording: Recording) -> Recording:
    """What is on file, for every size; recorded anew where the run has changed since."""
    from peftadvisor.simulator.record import record_growing

    try:
        return record_growing(variant, piece, recording)
    except InexactError:
        print(f"{variant.member(piece)} of {variant.model.id} is recorded anew", flush=True)
        return record_growing(variant, piece)


def _present(variant: Variant, regime: Regime, out: Path) -> Regime | None:
    """The piece that is recorded, for lengths of all kinds or aligned ones, or None."""
    path = out / f"{variant.model.config_key}.zip"
    if not path.exists():
        return None
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    kinds: tuple[Lengths, ...] = ("any", "aligned")
    pieces = (dataclasses.replace(regime, lengths=n) for n in kinds)
    return next((piece for piece in pieces if variant.member(piece) in names), None)


def _read(variant: Variant, piece: Regime, out: Path) -> Recording:
    with zipfile.ZipFile(out / f"{variant.model.config_key}.zip") as archive:
        return unpack(archive.read(variant.member(piece)))


def _record(variant: Variant, regime: Regime, out: Path, aligned: bool) -> bool:
    """Keep a recording for any lengths, else for aligned ones; whether it is for any."""
    from peftadvisor.simulator.attention import Device
    from peftadvisor.simulator.record import record

    device = Device(REPRESENTATIVE[variant.kernels])
    for lengths in ("aligned",) if aligned else ("any", "aligned"):
        piece = dataclasses.replace(regime, lengths=lengths)
        try:
            recording = record(variant.model, variant.method, variant.training, device, piece)
        except InexactError:
            if lengths == "aligned":
                raise
            continue
        variant.keep(piece, recording, out)
        return lengths == "any"
    raise AssertionError("aligned lengths end in a recording or an error")


def main() -> None:
    """Record in parallel, one model per process at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=None)
    parser.add_argument("--methods", default=",".join(SHIPPED))
    parser.add_argument("--kernels", default="flash")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--add-ranks", action="store_true")
    options = parser.parse_args()
    listed = [line.split("#")[0].strip() for line in MODELS.read_text().splitlines()]
    models = options.models.split(",") if options.models else [name for name in listed if name]
    methods = options.methods.split(",")
    each = grow_model if options.add_ranks else record_model
    work = partial(each, methods=methods, kernels=options.kernels, out=options.out)
    with get_context("spawn").Pool(options.workers, maxtasksperchild=4) as pool:
        for line in pool.imap_unordered(work, models):
            print(line, flush=True)


if __name__ == "__main__":
    main()
