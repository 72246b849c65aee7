"""Config files broken at random: what a check must answer in one line, or in full."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.config_reading import CONFIGS

SHIPPED = Path(__file__).parent.parent / "benchmarks" / "tool_configs"
ODD_VALUES = (
    *(
        "",
        "~",
        "null",
        "true",
        "-1",
        "0",
        "1e308",
        ".inf",
        ".nan",
        "1e-4",
        "0x10",
        "1_000",
        "99" * 40,
    ),
    *(
        "[]",
        "{}",
        "[1, [2, [3]]]",
        "{a: {b: c}}",
        "'",
        '"',
        "&a *a",
        "*unknown",
        "!!python/name:os.system",
    ),
    *(
        "!!binary aGk=",
        "!!set {a, b}",
        "!!timestamp 2026-01-01",
        "2026-01-01",
        "? [a, b]",
        "|\n  text",
    ),
    *(
        "\u202eabc",
        "<script>",
        "../../etc/passwd",
        "/dev/zero",
        "a" * 5000,
        "\x00",
        "%s%n",
        "=",
        "<<",
    ),
)
LINES = (
    "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
    "<<: {micro_batch_size: 3}",
    "---\nother: document",
    "? {complex: key}\n: value",
    "%YAML 9.9",
    "\tindented: by a tab",
    "deepspeed: no/such/file.json",
    "base_model: ..",
    "model_name_or_path: '\\0'",
    "quantization_bit: 3",
)


def corpus() -> list[Path]:
    """Every training config of the corpus."""
    found = sorted(path for path in CONFIGS.rglob("*") if path.suffix in (".yml", ".yaml", ".json"))
    return [path for path in found if path.parent.name not in ("accelerate", "deepspeed")]


def texts() -> list[str]:
    """What the corpus holds, and as much again of configs whose runs ship recorded."""
    shipped = [path.read_text(encoding="utf-8") for path in sorted(SHIPPED.iterdir())]
    answered = [text.replace("MODEL", "meta-llama/Llama-3.1-8B") for text in shipped]
    return [path.read_text(encoding="utf-8") for path in corpus()] + 6 * answered


def mutated(rng: random.Random, text: str) -> bytes:
    """The text after one to four changes of some kind."""
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(_KINDS)(rng, text)
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + bytes(rng.randrange(256) for _ in range(4)) + content[at:]
    return content


def _value(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon} {rng.choice(ODD_VALUES)}"
    return "\n".join(lines)


def _dropped(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines) or " "


def _added(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(LINES))
    return "\n".join(lines)


def _swapped(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return "\n".join(lines)


def _cut(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _character(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice("{}[]:,'\"#&*!|>%@`\\\n\t\0") + text[at:]


def _misspelt(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    lines[at] = lines[at].replace("_", "-", 1) if rng.random() < 0.5 else lines[at].upper()
    return "\n".join(lines)


_KINDS: tuple[Callable[[random.Random, str], str], ...] = (
    *(_value, _value, _value, _dropped, _added, _swapped, _cut, _character, _misspelt),
)
