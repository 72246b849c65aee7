"""What a model is trained for, and one micro-batch of it: shapes on the meta device, no values.

A task goes with one of transformers' auto-mappings (config class to model class). Multimodal
models are trained on text: ids and labels, no images; their towers hold memory but do not run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from peftadvisor.errors import UsageError
from peftadvisor.specs import TrainingSpec

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Task:
    """A way to train: its auto-mapping in transformers, its batch, and what its length means."""

    name: str
    mapping: str
    batch: Callable[[Any, TrainingSpec], Batch]
    uses_seq_len: bool = True
    forward: Mapping[str, Any] | None = None

    def model_class(self, config: Any) -> Any:
        """The model class of this task for a config, or None."""
        import transformers

        mapping = getattr(transformers, self.mapping)
        found = mapping.get(type(config), None)
        return found[0] if isinstance(found, tuple) else found


def make_batch(model: Any, training: TrainingSpec) -> Batch:
    """One micro-batch on the meta device, as the usual collator of the task would give it.

    Decoders: ids, mask and labels [b, s]. Encoder-decoders: ids and mask [b, s], labels [b, t].
    Masked language models: labels [b, s]; classifiers: labels [b]. Vision: pixels of the
    config's image size. Whisper: its fixed window of log-mel frames and labels [b, t].
    wav2vec2: waveforms long enough for ``seq_len`` encoder frames, labels [b, t]. CLIP: b texts
    of ``seq_len`` tokens (at most what it has positions for) and b images.
    """
    batch = task_of(model).batch(model.config, training)
    weight = next(p for p in model.parameters() if p.is_floating_point())
    return {k: v.to(weight.dtype) if v.is_floating_point() else v for k, v in batch.items()}


def uses_seq_len(config: Any) -> bool:
    """Whether the length of a batch follows ``seq_len``, or is fixed by the model."""
    return all(t.uses_seq_len for t in TASKS if t.model_class(config) is not None)


def task_of(model: Any) -> Task:
    """The task that a model was built for."""
    for task in TASKS:
        if task.model_class(model.config) is type(model):
            return task
    raise UsageError(f"{type(model).__name__} has no training task that is supported")


def choose_class(config: Any, architecture: str | None) -> tuple[Any, Task]:
    """The model class to train, and its task.

    The class that the config names, where it can be trained; a headless or pre-training class
    gets a head: language model for decoders, classifier for text and image encoders, CTC for
    speech encoders. A config that names none gets its usual language model or classifier.

    Raises:
        UsageError: transformers has no trainable class for this config.
    """
    candidates = [(cls, task) for task in TASKS if (cls := task.model_class(config)) is not None]
    for cls, task in candidates:
        if architecture and cls.__name__.lower() == architecture.lower():
            return cls, task
    tasks = {task.name: (cls, task) for cls, task in candidates}
    order = _HEADS["encoder" if "masked-lm" in tasks else "other"]
    if architecture is None:
        order = ("masked-lm", *order)
    for name in order:
        if name in tasks:
            return tasks[name]
    raise UsageError(
        f"{architecture or config.model_type}: transformers has no trainable head for it; "
        "text, vision and speech models with a language-model, classification or CTC head work"
    )


def _long(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.long, device="meta")


def _ids(b: int, s: int) -> Batch:
    return {"input_ids": _long(b, s), "attention_mask": torch.ones_like(_long(b, s))}


def _tokens(config: Any, training: TrainingSpec) -> Batch:
    b, s = training.micro_batch_size, training.seq_len
    return {**_ids(b, s), "labels": _long(b, s)}


def _pair(config: Any, training: TrainingSpec) -> Batch:
    b = training.micro_batch_size
    return {**_ids(b, training.seq_len), "labels": _long(b, training.target_len)}


def _classes(config: Any, training: TrainingSpec) -> Batch:
    b = training.micro_batch_size
    return {**_ids(b, training.seq_len), "labels": _long(b)}


def _pixels(vision: Any, config: Any, b: int) -> torch.Tensor:
    size = vision.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return torch.zeros(b, vision.num_channels, height, width, dtype=config.dtype, device="meta")


def _image(config: Any, training: TrainingSpec) -> Batch:
    b = training.micro_batch_size
    return {"pixel_values": _pixels(config, config, b), "labels": _long(b)}


def _image_and_text(config: Any, training: TrainingSpec) -> Batch:
    b = training.micro_batch_size
    longest = config.text_config.max_position_embeddings
    return {
        **_ids(b, min(training.seq_len, longest)),
        "pixel_values": _pixels(config.vision_config, config, b),
    }


def _mel_frames(config: Any, training: TrainingSpec) -> Batch:
    b, frames = training.micro_batch_size, 2 * config.max_source_positions
    features = torch.zeros(b, config.num_mel_bins, frames, dtype=config.dtype, device="meta")
    return {"input_features": features, "labels": _long(b, training.target_len)}


def _waveform(config: Any, training: TrainingSpec) -> Batch:
    b, samples = training.micro_batch_size, training.seq_len
    for kernel, stride in zip(
        reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
    ):
        samples = (samples - 1) * stride + kernel
    waves = torch.zeros(b, samples, dtype=config.dtype, device="meta")
    # The model reads these labels (their maximum, how many are not padding): real zeros.
    labels = torch.zeros(b, min(training.target_len, training.seq_len), dtype=torch.long)
    return {"input_values": waves, "labels": labels}


TASKS = (
    Task("speech-seq2seq", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING", _mel_frames, uses_seq_len=False),
    Task("seq2seq", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING", _pair),
    Task("multimodal-lm", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", _tokens),
    Task("any-to-text", "MODEL_FOR_MULTIMODAL_LM_MAPPING", _tokens),
    Task("causal-lm", "MODEL_FOR_CAUSAL_LM_MAPPING", _tokens),
    Task("masked-lm", "MODEL_FOR_MASKED_LM_MAPPING", _tokens),
    Task("ctc", "MODEL_FOR_CTC_MAPPING", _waveform),
    Task("image", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING", _image, uses_seq_len=False),
    Task(
        "image-and-text",
        "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING",
        _image_and_text,
        forward={"return_loss": True},
    ),
    Task("classifier", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", _classes),
)
# Which head a model gets whose config names none that can be trained, best first.
_HEADS = {
    "encoder": ("seq2seq", "classifier", "masked-lm"),
    "other": (
        "speech-seq2seq",
        "seq2seq",
        "multimodal-lm",
        "any-to-text",
        "causal-lm",
        "ctc",
        "image-and-text",
        "image",
        "classifier",
    ),
}
