"""Record runs as other tools configure them, so that ``check`` answers without torch.

    python benchmarks/make_tool_recordings.py [--models a,b] [--workers 2] [--out DIR]

The configs are those of ``tool_configs/``: the usual ones of each tool, for each model; none of
TRL's, whose loss in chunks has other events at other lengths, so that each run is simulated by
itself. A recording holds for all ranks, or there is one for each of the usual ones. Resumable: what
is already recorded is skipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from peftadvisor.data.models import find_model
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of
from peftadvisor.simulator.attention import Device
from peftadvisor.simulator.library import BUNDLED, REPRESENTATIVE, Variant
from peftadvisor.simulator.record import record, record_growing
from peftadvisor.simulator.recorder import InexactError
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.regimes import Lengths, Regime

CONFIGS = Path(__file__).with_name("tool_configs")
MODELS = "meta-llama/Llama-3.1-8B,meta-llama/Llama-3.2-1B"
RANKS = (8, 16, 32, 64)
"""Where one recording does not hold for all: 8-bit states of small tensors stay in fp32."""
ANY: tuple[Lengths, ...] = ("any", "aligned")


def variants(model_id: str, folder: Path) -> Iterator[Variant]:
    """What the configs make of one model, each once, at the rank that recordings start from."""
    found = {}
    for template in sorted(CONFIGS.iterdir()):
        path = folder / template.name
        path.write_text(template.read_text().replace("MODEL", model_id))
        file = read_config_file(path)
        config = tool_of(file).read(file)
        variant = Variant(find_model(config.model), config.method, config.training, "flash")
        found[variant.general.member(Regime(False, "any", 0))] = variant.general
    yield from found.values()


def record_model(model_id: str, out: Path) -> str:
    """Record all that is missing of one model; one line of what came of it."""
    import tempfile

    started, made, skipped, failed = time.time(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        every = list(variants(model_id, Path(folder)))
    for variant in every:
        for single in (False, True):
            pieces = [Regime(single, lengths, 0) for lengths in ANY]
            if any(_there(variant, piece, out) for piece in pieces):
                skipped += 1
                continue
            try:
                _record(variant, pieces, out)
                made += 1
            except PeftAdvisorError as error:
                failed.append(f"{variant.member(pieces[0])}: {error}")
    line = f"{model_id}: {made} made, {skipped} there, {time.time() - started:.0f} s"
    return "\n  ".join([line, *failed])


def _there(variant: Variant, piece: Regime, out: Path) -> bool:
    """Whether it is recorded for all ranks, or the usual ones; taken over from the user's cache."""
    found = {v: v.find(piece) for v in (variant, *_ranked(variant))}
    grown = found[variant] is not None and found[variant].growth is not None
    wanted = [variant] if grown else _ranked(variant)
    if not all(found[v] for v in wanted):
        return False
    for v in wanted:
        v.keep(piece, found[v], out)
    return True


def _ranked(variant: Variant) -> list[Variant]:
    method = variant.method
    return [replace(variant, method=method.with_settings(rank=rank)) for rank in RANKS]


def _record(variant: Variant, pieces: list[Regime], out: Path) -> None:
    """For all ranks, else for the usual ones; for any lengths, else for aligned ones."""
    try:
        _first_exact(lambda piece: variant.keep(piece, record_growing(variant, piece), out), pieces)
    except InexactError:
        for ranked in _ranked(variant):
            _first_exact(lambda piece, v=ranked: v.keep(piece, _recorded(v, piece), out), pieces)


def _first_exact(keep: Callable[[Regime], None], pieces: list[Regime]) -> None:
    for piece in pieces[:-1]:
        try:
            return keep(piece)
        except InexactError:
            continue
    return keep(pieces[-1])


def _recorded(variant: Variant, piece: Regime) -> Recording:
    device = Device(REPRESENTATIVE[variant.kernels])
    return record(variant.model, variant.method, variant.training, device, piece)


def main() -> None:
    """Record in parallel, one model per process at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    options = parser.parse_args()
    work = partial(record_model, out=options.out)
    with get_context("spawn").Pool(options.workers, maxtasksperchild=1) as pool:
        for line in pool.imap_unordered(work, options.models.split(",")):
            print(line, flush=True)


if __name__ == "__main__":
    main()
