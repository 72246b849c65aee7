"""What evidence is asked about: task, model, base and data of the run that advice is wanted for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from peftadvisor.specs import Job, ModelSpec, Quantization, Task, TrainingSpec

ModelKind = Literal["decoder", "encoder", "encoder-decoder", "vision", "speech", "state-space"]

_TYPES: Mapping[ModelKind, str] = {
    "encoder": "albert bert camembert deberta deberta-v2 distilbert electra eurobert modernbert "
    "mpnet roberta xlm-roberta xlm-roberta-xl",
    "vision": "beit clip convnext deit dinov2 dinov3_vit siglip siglip2 swin swinv2 vit vit_mae",
    "speech": "hubert seamless_m4t speech_to_text speecht5 wav2vec2 wav2vec2-bert wavlm whisper",
    "state-space": "bamba falcon_h1 falcon_mamba granitemoehybrid jamba mamba mamba2 nemotron_h "
    "qwen3_5 qwen3_5_moe qwen3_next recurrent_gemma rwkv xlstm zamba zamba2",
    "decoder": "chatglm",
}
_KINDS = {name: kind for kind, names in _TYPES.items() for name in names.split()}
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A run as far as evidence depends on it. None is what is not known, and discounts nothing.

    ``parameters`` are the model's, ``examples`` those that it learns from, ``context_tokens`` the
    longest sequence; ``instruct`` says whether the base was tuned on instructions before,
    ``adapts_experts`` whether the method changes the experts of a mixture, ``many_adapters``
    whether several trained adapters are to be served from one base.
    """

    task: Task | None = None
    parameters: int | None = None
    kind: ModelKind | None = None
    quantization: Quantization | None = None
    examples: int | None = None
    context_tokens: int | None = None
    instruct: bool | None = None
    adapts_experts: bool = False
    many_adapters: bool = False


def asked_about(model: ModelSpec, training: TrainingSpec, job: Job | None = None) -> Asked:
    """What a model, its training and its job say; the rest is left open."""
    job = job or Job()
    return Asked(
        task=job.task,
        parameters=model.parameters,
        kind=model_kind(model),
        quantization=training.quantization,
        examples=job.examples,
        context_tokens=training.seq_len,
    )


def model_kind(model: ModelSpec) -> ModelKind | None:
    """What a model is by its config, None where that does not say.

    The language part of a multimodal model counts as a decoder: text is all that it is trained on
    here. Models with state-space or linear-attention layers among others are state-space models.
    """
    config = model.config
    if model.model_type in _KINDS:
        return _KINDS[model.model_type]
    if config.get("is_encoder_decoder"):
        return "encoder-decoder"
    architecture = str((config.get("architectures") or [""])[0])
    return "decoder" if architecture.endswith(_GENERATES) else None
