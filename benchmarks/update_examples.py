"""Write docs/examples: eight questions and their whole answers, as the command prints them.

    python benchmarks/update_examples.py [NAME ...]

Without names, all of them. Answers on models that are not bundled are recorded first, which takes
minutes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "examples"
EXAMPLES = {
    "t5-11b-a100-40g": "--model t5-11b --gpu a100-40g --task summarization --examples 50000",
    "llama-3.1-8b-rtx-4090": "--model meta-llama/Llama-3.1-8B --gpu rtx-4090 --task instruction "
    "--examples 20000 --seq-len 1024 --test-examples 500",
    "llama-3.1-70b-h100": "--model meta-llama/Llama-3.1-70B --gpu h100-80g --task instruction "
    "--examples 20000 --seq-len 1024",
    "qwen2.5-0.5b-t4": "--model Qwen/Qwen2.5-0.5B --gpu t4 --task reasoning --examples 8000",
    "bert-large-t4": "--model google-bert/bert-large-uncased --gpu t4 --task classification "
    "--examples 10000 --seq-len 256",
    "mixtral-8x7b-h200": "--model mistralai/Mixtral-8x7B-v0.1 --gpu h200 --task instruction "
    "--examples 20000 --seq-len 1024 --methods lora,lora-all,qlora,full",
    "vit-large-rtx-3060": "--model google/vit-large-patch16-224 --gpu rtx-3060 "
    "--task classification --examples 50000 --effective-batch-size 32",
    "whisper-small-l4": "--model openai/whisper-small --gpu l4 --examples 20000 "
    "--methods lora,lora-all,full,ia3,ln-tuning",
}


def answer(options: str) -> str:
    """What the command prints, 100 columns wide."""
    words = [
        sys.executable,
        "-c",
        "from peftadvisor.cli.main import main; raise SystemExit(main())",
    ]
    done = subprocess.run(
        [*words, "recommend", *shlex.split(options)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"recommend {options}\n{done.stderr}")
    return done.stdout


def main(names: list[str]) -> None:
    """Write those examples, or all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names or EXAMPLES:
        options = EXAMPLES[name]
        text = answer(options)
        page = f"# {name}\n\n```\n$ peftadvisor recommend {options}\n\n{text.rstrip()}\n```\n"
        (FOLDER / f"{name}.md").write_text(page, encoding="utf-8")
        print(FOLDER / f"{name}.md", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
