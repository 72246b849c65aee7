"""Record runs as other tools configure them, so that ``check`` answers without torch.

    python benchmarks/make_tool_recordings.py [--models a,b] [--workers 2] [--out DIR]

The configs are those of ``tool_configs/``: the usual ones of each tool, for each model. Every
recording holds for all ranks. Resumable: what is already recorded is skipped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from peftadvisor.data.models import find_model
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of
from peftadvisor.simulator.library import BUNDLED, Variant
from peftadvisor.simulator.record import record_growing
from peftadvisor.simulator.recorder import InexactError
from peftadvisor.simulator.regimes import Lengths, Regime

CONFIGS = Path(__file__).with_name("tool_configs")
MODELS = "meta-llama/Llama-3.1-8B,meta-llama/Llama-3.2-1B,Qwen/Qwen2.5-7B,mistralai/Mistral-7B-v0.1"
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
            if any(_grown(variant, piece, out) for piece in pieces):
                skipped += 1
                continue
            try:
                _record(variant, pieces, out)
                made += 1
            except PeftAdvisorError as error:
                failed.append(f"{variant.member(pieces[0])}: {error}")
    line = f"{model_id}: {made} made, {skipped} there, {time.time() - started:.0f} s"
    return "\n  ".join([line, *failed])


def _grown(variant: Variant, piece: Regime, out: Path) -> bool:
    """Whether a recording for all ranks is there; one in the user's cache is taken over."""
    recording = variant.find(piece)
    if recording is None or recording.growth is None:
        return False
    variant.keep(piece, recording, out)
    return True


def _record(variant: Variant, pieces: list[Regime], out: Path) -> None:
    """For any lengths, else for aligned ones."""
    for piece in pieces:
        try:
            variant.keep(piece, record_growing(variant, piece), out)
            return
        except InexactError as error:
            last = error
    raise last


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
