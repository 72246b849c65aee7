"""Every config of the tests' corpus on a card that is too small for it: does the fix fit?

    python benchmarks/fix_corpus.py [--only NAME,NAME]

For each, the largest of some cards on which it does not fit is taken, the smallest change that
fits is written, and what was written is checked again: it must fit, and differ from the original
in the lines of the diff alone. Records what is not on file: needs torch, and minutes at first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftadvisor.data.gpus import find_gpu
from peftadvisor.errors import UsageError
from peftadvisor.integrations.checked import Verdict
from peftadvisor.integrations.checking import Terms, check
from tests.config_mutations import corpus

CARDS = ("h200", "a100-80g", "a100-40g", "rtx-4090", "rtx-3060-12g")


def failing(path: Path) -> Verdict | None:
    """On the largest card on which it does not fit, with the change that helps."""
    for card in CARDS:
        without = check(path, Terms(gpu=find_gpu(card), fixing=False))
        if without.estimate.verdict != "fits":
            return check(path, Terms(gpu=find_gpu(card)))
    return None


@contextmanager
def beside(path: Path, text: str) -> Iterator[Path]:
    """The text as a file beside the config, where what it refers to by relative paths lies."""
    changed = path.with_name(f"fixed.{path.name}")
    changed.write_text(text, encoding="utf-8")
    try:
        yield changed
    finally:
        changed.unlink()


def tried(path: Path) -> str:
    """What became of one config, in one line; it begins with WRONG where a fix does not hold."""
    try:
        verdict = failing(path)
    except UsageError as error:
        return f"not predicted: {error}"
    if verdict is None:
        return f"fits on every card down to {CARDS[-1]}"
    card = verdict.estimate.run.gpu.id
    if verdict.fix is None:
        return f"{card}: no change makes it fit"
    if not verdict.fix.text:
        return f"{card}: {verdict.fix.words}, which the file cannot be told"
    with beside(path, verdict.fix.text) as changed:
        again = check(changed, Terms(gpu=find_gpu(card), fixing=False))
    lines = [line for line in verdict.fix.diff.splitlines()[2:] if line[:1] in "+-"]
    holds = again.estimate.verdict == "fits"
    return f"{'' if holds else 'WRONG '}{card}: {verdict.fix.words} ({len(lines)} lines of diff)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="Names of files.")
    only = parser.parse_args().only
    wrong = 0
    for path in corpus():
        if only is None or path.name in only.split(","):
            said = tried(path)
            wrong += said.startswith("WRONG")
            print(f"{path.parent.name}/{path.name}: {said}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
