"""DeepSpeed's config for each stage of ZeRO, with the values that transformers fills in."""

from __future__ import annotations

from typing import Any


def deepspeed(sharding: str) -> dict[str, Any]:
    """The config of ``zero-1`` to ``zero-3``; ``auto`` is filled in by transformers."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": {"stage": int(sharding.removeprefix("zero-"))},
    }
