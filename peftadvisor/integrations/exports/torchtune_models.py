"""The models that torchtune 0.6.1 has builders for, by their Hub ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Builders of one family, which share module, tokenizer and checkpoint format.

    ``builder`` is filled with what the pattern of the id catches; ``files`` are the tokenizer's
    arguments that are paths below the checkpoint.
    """

    builder: str
    tokenizer: str
    files: Mapping[str, str]
    checkpoint: str
    dora: bool = True

    def model(self, size: str, lora: bool) -> str:
        """The dotted name of a builder."""
        module, name = self.builder.format(size=size.replace(".", "_")).split(".")
        return f"torchtune.models.{module}.{'lora_' if lora else ''}{name}"


_SENTENCEPIECE = {"path": "tokenizer.model"}
_TIKTOKEN = {"path": "original/tokenizer.model"}
_MERGES = {"path": "vocab.json", "merges_file": "merges.txt"}

_LLAMA3 = "llama3.llama3_tokenizer"
_QWEN2 = Family("qwen2.qwen2_{size}b", "qwen2.qwen2_tokenizer", _MERGES, "QWEN2")
_QWEN2_5, _QWEN2_5_BASE, _QWEN2_5_INSTRUCT = (
    Family(f"qwen2_5.qwen2_5_{{size}}b{kind}", "qwen2_5.qwen2_5_tokenizer", _MERGES, "QWEN2")
    for kind in ("", "_base", "_instruct")
)

MODELS: Mapping[str, Family] = {
    r"llama-2-(7|13|70)b(?:-chat)?-hf": Family(
        "llama2.llama2_{size}b", "llama2.llama2_tokenizer", _SENTENCEPIECE, "LLAMA2"
    ),
    r"codellama-(7|13|70)b-hf": Family(
        "code_llama2.code_llama2_{size}b", "llama2.llama2_tokenizer", _SENTENCEPIECE, "LLAMA2"
    ),
    r"meta-llama-3-(8|70)b(?:-instruct)?": Family(
        "llama3.llama3_{size}b", _LLAMA3, _TIKTOKEN, "LLAMA3"
    ),
    r"(?:meta-)?llama-3\.1-(8|70)b(?:-instruct)?": Family(
        "llama3_1.llama3_1_{size}b", _LLAMA3, _TIKTOKEN, "LLAMA3"
    ),
    r"(?:meta-)?llama-3\.1-(405)b(?:-instruct)?": Family(
        "llama3_1.llama3_1_{size}b", _LLAMA3, _TIKTOKEN, "LLAMA3", dora=False
    ),
    r"llama-3\.2-(1|3)b(?:-instruct)?": Family(
        "llama3_2.llama3_2_{size}b", _LLAMA3, _TIKTOKEN, "LLAMA3_2"
    ),
    r"llama-3\.3-(70)b-instruct": Family("llama3_3.llama3_3_{size}b", _LLAMA3, _TIKTOKEN, "LLAMA3"),
    r"mistral-(7)b-v0\.1": Family(
        "mistral.mistral_{size}b", "mistral.mistral_tokenizer", _SENTENCEPIECE, "MISTRAL"
    ),
    r"gemma-(2|7)b(?:-it)?": Family(
        "gemma.gemma_{size}b", "gemma.gemma_tokenizer", _SENTENCEPIECE, "GEMMA"
    ),
    r"gemma-2-(2|9|27)b(?:-it)?": Family(
        "gemma2.gemma2_{size}b", "gemma.gemma_tokenizer", _SENTENCEPIECE, "GEMMA2"
    ),
    r"phi-3-(mini)-4k-instruct": Family(
        "phi3.phi3_{size}", "phi3.phi3_mini_tokenizer", _SENTENCEPIECE, "PHI3_MINI"
    ),
    r"phi-(4)": Family(
        "phi4.phi4_14b",
        "phi4.phi4_tokenizer",
        {"vocab_path": "vocab.json", "merges_path": "merges.txt"},
        "PHI4",
    ),
    r"qwen2-(0\.5|1\.5|7)b(?:-instruct)?": _QWEN2,
    r"qwen2\.5-(0\.5|3)b(?:-instruct)?": _QWEN2_5,
    r"qwen2\.5-(1\.5|7|14|32|72)b": _QWEN2_5_BASE,
    r"qwen2\.5-(1\.5|7|14|32|72)b-instruct": _QWEN2_5_INSTRUCT,
}
"""Patterns of the last part of a Hub id, which catch the size."""


def find_family(model_id: str) -> tuple[Family, str] | None:
    """The family of a model and its size, None where torchtune has no builder."""
    last = model_id.rpartition("/")[2].lower()
    for pattern, family in MODELS.items():
        found = re.fullmatch(pattern, last)
        if found:
            return family, found[1]
    return None
