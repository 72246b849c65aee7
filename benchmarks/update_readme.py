"""Put what the commands print now into the README, between its ``<!-- session:NAME -->`` marks.

python benchmarks/update_readme.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
SESSIONS = {"recommend": ["recommend", "--model", "t5-11b", "--gpu", "a100-40g"]}


def printed(arguments: list[str]) -> str:
    """What the command prints at 100 columns."""
    code = "import sys; from peftadvisor.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return run.stdout.rstrip()


def shown(text: str) -> str:
    """The answer up to its reasons in full; the rest stands in docs/examples."""
    answer, found, _ = text.partition("\n\nHyperparameters of ")
    return (
        f"{answer}\n\n[hyperparameters, findings, pilot, all methods: see docs/examples]"
        if found
        else text
    )


def main() -> None:
    """Rewrite every session block."""
    text = README.read_text(encoding="utf-8")
    for name, arguments in SESSIONS.items():
        block = f"```text\n$ peftadvisor {' '.join(arguments)}\n{shown(printed(arguments))}\n```\n"
        marks = rf"(<!-- session:{name} -->\n).*?(<!-- /session:{name} -->)"
        text = re.sub(marks, lambda m, b=block: m[1] + b + m[2], text, flags=re.DOTALL)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
