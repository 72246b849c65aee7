"""Broken configs put to ``peftadvisor check``: no traceback, and only the codes of the contract.

    python benchmarks/mutate_configs.py [--count 5000] [--seed 1]

Configs of the tests' corpus are changed at random. Nothing is recorded: what ships answers.
Prints how often each code came, the slowest answer, and every file that went wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from peftadvisor.cli.main import main as command
from peftadvisor.simulator import obtain
from tests.config_mutations import mutated, texts

CARDS = ("a100-80g", "rtx-3060-12g")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    obtain.find_spec = lambda name: None  # type: ignore[assignment,return-value]
    os.environ["HF_HUB_OFFLINE"] = "1"
    rng, files = random.Random(options.seed), texts()
    codes: collections.Counter[int] = collections.Counter()
    slowest = wrong = 0.0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        path = Path(folder) / "config.yaml"
        for _ in range(options.count):
            path.write_bytes(mutated(rng, rng.choice(files)))
            said, started = io.StringIO(), time.perf_counter()
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                code = command(["check", str(path), "--gpu", rng.choice(CARDS)])
            slowest = max(slowest, time.perf_counter() - started)
            codes[code] += 1
            if code not in (0, 2, 3, 4) or (code == 2 and said.getvalue().count("\n") != 1):
                wrong += 1
                print(code, said.getvalue(), path.read_bytes(), flush=True)
    print(f"{options.count} configs: codes {dict(codes)}, {wrong:g} wrong, slowest {slowest:.2f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
