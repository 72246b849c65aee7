"""Small real runs of Trainers for tests of the check before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from peftadvisor.integrations.preflight import (  # noqa: E402
    PreflightCallback,
)
from tests.parity.tiny import LLAMA  # noqa: E402

LIMIT = 200 * 10**6
TOLERANCE = 0.002
"""Of the measured peak; scalars of a few bytes are not simulated."""
# 4 layers of 65,536 (q) + 2 · 32,768 (k, v) + 65,536 (o) + 3 · 176,128 (MLP) + 2 · 256 (norms),
# embeddings and head of 819,200 each, and the last norm: 4,540,672 parameters.
PARAMETERS = 4_540_672


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**{**LLAMA, **changes})
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def lora(model: Any, **fields: Any) -> Any:
    return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4, **fields))


def with_peft(kind: str, **fields: Any) -> Any:
    config = getattr(peft, kind)(task_type="CAUSAL_LM", **fields)
    return peft.get_peft_model(llama(), config)


class Texts(torch.utils.data.Dataset):  # type: ignore[misc]
    """Texts of given lengths, all of one token."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        ids = [5] * self.lengths[number]
        return {"input_ids": ids, "labels": ids, "attention_mask": [1] * len(ids)}


def collate(samples: list[dict[str, list[int]]]) -> dict[str, Any]:
    longest = max(len(sample["input_ids"]) for sample in samples)
    return {
        name: torch.tensor([s[name] + [0] * (longest - len(s[name])) for s in samples])
        for name in samples[0]
    }


def arguments(folder: Path, **changes: Any) -> Any:
    usual = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(**{**usual, **changes})


def trained(model: Any, folder: Path, callback: Any, **changes: Any) -> Any:
    """Train four steps of the texts of ``lengths`` by the class ``trainer`` and ``optimizer``."""
    lengths = changes.pop("lengths", [64] * 16)
    kind = changes.pop("trainer", transformers.Trainer)
    optimizer = changes.pop("optimizer", lambda _: None)(model.parameters())
    made = kind(
        model=model,
        args=arguments(folder, **changes),
        train_dataset=Texts(lengths),
        data_collator=collate,
        callbacks=[callback] if callback else [],
        optimizers=(optimizer, None),
    )
    made.train()
    return made


def exact(**options: Any) -> PreflightCallback:
    return PreflightCallback(limit_bytes=LIMIT, record_allocations=True, **options)
