"""Runs to export, tiny models on disk to train by the exported scripts, and no real estimates."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.advisor.advised import Advised
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.profiles import (
    Cost,
    Estimate,
    Evidence,
    Flops,
    Memory,
    MemoryBreakdown,
    Parameters,
    Provenance,
    StepTime,
)
from peftadvisor.specs import MethodSpec, ModelSpec, RunSpec, TrainingSpec
from peftadvisor.units import GIB

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "dogs")
TINY: Mapping[str, Mapping[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
        "max_position_embeddings": 512,
    },
    "t5": {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 64,
        "d_ff": 128,
        "d_kv": 16,
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "vocab_size": 300,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
    "bert": {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 300,
        "max_position_embeddings": 512,
    },
    "masked-bert": {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 300,
        "max_position_embeddings": 512,
    },
}
"""Configs of models that train in a second on a CPU."""


def tiny_model(kind: str) -> ModelSpec:
    return ModelSpec(
        id=f"tiny/{kind}",
        config=TINY[kind],
        config_key=f"tiny-{kind}",
        parameters=None,
        checkpoint_parameters=None,
        provenance="made for a test",
    )


def run_of(
    method: str, *, model: ModelSpec | str = "meta-llama/Llama-3.2-1B", **training: Any
) -> RunSpec:
    """A run on one L40S; keywords are training settings."""
    return RunSpec(
        model=find_model(model) if isinstance(model, str) else model,
        method=MethodSpec(name=method),
        training=TrainingSpec(**training),
        gpu=find_gpu("l40s"),
    )


def estimate_of(run: RunSpec) -> Estimate:
    """An estimate with made-up numbers that agree with each other."""
    return Estimate(
        run=run,
        parameters=Parameters(total=10**9, trainable=10**6, stored_bytes=4 * 10**6),
        memory=Memory(
            allocated_peak_bytes=19 * GIB,
            reserved_peak_bytes=20 * GIB,
            device_peak_bytes=21 * GIB,
            low_bytes=20 * GIB,
            high_bytes=23 * GIB,
            breakdown=MemoryBreakdown(weights_bytes=21 * GIB),
            peak_phase="backward",
            peak_op="made up",
        ),
        flops=Flops(forward=1, backward=2, recompute=0, optimizer=1),
        time=StepTime(
            step_s=0.5, low_s=0.4, high_s=0.7, tokens_per_s=2048, samples_per_s=4, bound="made up"
        ),
        cost=Cost(),
        verdict="fits",
        oom_probability=0.003,
        evidence=Evidence(),
        reasons=(),
        provenance=Provenance(
            engine="simulate", versions={"torch": "2.13.0"}, recording="", calibration="made up"
        ),
    )


def advice(**values: Any) -> tuple[Advised, ...]:
    return tuple(
        Advised(name=name, value=value, rule="a rule", source="a source", confidence="high")
        for name, value in values.items()
    )


def save_model(kind: str, folder: Path) -> Path:
    """A model with random weights in bf16, and a tokenizer of whole words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = dict(TINY[kind])
    names = raw["architectures"]
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        getattr(transformers, names[0])(config).to(torch.bfloat16).save_pretrained(folder)
    special = ("<pad>", "</s>", "<unk>")
    words = {word: number for number, word in enumerate((*special, *WORDS, "<mask>"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    return folder


def save_data(kind: str, path: Path, lines: int = 24) -> Path:
    """JSONL of the kind that a model trains on."""
    text = " ".join(WORDS)
    example = {
        "llama": {"text": text},
        "t5": {"prompt": text, "completion": "two cat"},
        "bert": {"text": text, "label": 1},
        "masked-bert": {"text": text},
    }[kind]
    path.write_text(lines * (json.dumps(example) + "\n"), encoding="utf-8")
    return path
